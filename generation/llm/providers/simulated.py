"""A provider inside the process: no network, no key, no cost. It fails as often as you ask."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from itertools import cycle
from typing import TYPE_CHECKING

from generation.conversation import ToolUse
from generation.events import TextDelta
from generation.llm import policy
from generation.llm.providers.base import Answer
from generation.llm.providers.tool_calls import make_id
from generation.llm.transcript import CHARS_PER_TOKEN, estimate_input, estimate_tokens
from generation.records import Finding, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from generation.conf import Settings
    from generation.errors import LLMError
    from generation.llm.streamed_attempt import StreamedAttempt
    from generation.records import Prompt

_QUOTED_CHARS = 120
_PIECES = 40  # of a streamed answer, at most: each takes a timer
_FIRST_WORD = 0.25  # of the latency passes before the first word
_REJECTION_S = 0.05  # providers reject quickly

_CUT = "simulated broke off before its answer was complete"

_SENTENCES = (
    "The short answer is that it depends on what is measured.",
    "Three things matter here: the cost, the time, and who waits for it.",
    "A careful reader would first ask what happens when it fails.",
    "The usual advice holds: start small, and keep what works.",
    "There is a simpler way, and it is worth trying first.",
    "In practice the second step takes longer than the first.",
    "None of this is certain, but the direction is clear.",
    "An example makes it plain: take two, and compare them.",
)


class Simulated:
    name = "simulated"
    url = ""
    default_model = "simulated"
    price_list = ""

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:  # noqa: ARG003  # it needs none of them
        return True

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:  # noqa: ARG003  # it needs none of them
        return ""

    @classmethod
    def address(cls, settings: Settings) -> str:  # noqa: ARG003  # it has none
        return ""

    def __init__(self, settings: Settings, _: httpx.AsyncBaseTransport) -> None:
        self._latency_s = settings.llm_simulated_latency
        self._faults = settings.llm_simulated_faults
        self._random = random.Random()  # noqa: S311  # no secret is drawn from it

    def unknown_parameter(self, prompt: Prompt) -> str:
        if prompt.verbatim is not None and prompt.verbatim.path:
            return prompt.verbatim.path
        kind = (prompt.options.response_format or {}).get("type", "text")
        return "" if kind == "text" else f"response_format of the type {kind}"

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:  # noqa: ARG002  # the base's signature
        fault = self._draw_fault()
        await self._fail_at_once(fault)
        await asyncio.sleep(self._random.uniform(*self._latency_s))
        await self._fail_late(fault)
        return _answer(prompt, model)

    async def stream(
        self,
        prompt: Prompt,
        model: str,
        idempotency_key: str,  # noqa: ARG002  # the base's signature
        attempt: StreamedAttempt,
    ) -> Answer:
        fault = self._draw_fault()
        await self._fail_at_once(fault)
        latency = self._random.uniform(*self._latency_s)
        answer = _answer(prompt, model)
        await asyncio.sleep(latency * _FIRST_WORD)
        if fault == "malformed":
            await self._fail_late(fault)
        transcript = attempt.transcript
        transcript.model = answer.model
        pieces = _pieces(answer.text)
        for number, piece in enumerate(pieces, 1):
            transcript.events.append(TextDelta(piece))
            attempt.put_news()
            await attempt.room()
            if number * 2 > len(pieces):
                await self._fail_half_way(fault, attempt)
            await asyncio.sleep(latency * (1 - _FIRST_WORD) / len(pieces))
        if answer.blocks:
            await attempt.put_whole(answer)
        transcript.stop_reason = answer.stop_reason
        return answer

    async def _fail_at_once(self, fault: str | None) -> None:
        if fault == "timeout":
            await asyncio.Event().wait()
        if fault is not None and fault.isdigit():
            await asyncio.sleep(_REJECTION_S)
            raise _rejection(int(fault))

    async def _fail_late(self, fault: str | None) -> None:
        if fault == "stall":
            await asyncio.Event().wait()
        if fault == "cut":
            raise policy.to_error(Finding.BROKEN_OFF, _CUT, status_code=200)
        if fault == "malformed":
            raise policy.to_error(
                Finding.GARBLED, "simulated: the reply is not JSON", status_code=200
            )

    async def _fail_half_way(self, fault: str | None, attempt: StreamedAttempt) -> None:
        if fault == "stall":
            await asyncio.Event().wait()
        if fault == "cut":
            raise attempt.broken(_CUT, 200, "")

    def _draw_fault(self) -> str | None:
        draw = self._random.random()
        for fault, rate in self._faults.items():
            draw -= rate
            if draw < 0:
                return fault
        return None


def _rejection(status: int) -> LLMError:
    return policy.to_error(policy.find(status), f"simulated answered {status}", status_code=status)


def _answer(prompt: Prompt, model: str) -> Answer:
    """The same prompt always gets the same text."""
    model = model if model.startswith("simulated") else f"simulated-{model}"
    tool = _wanted_tool(prompt)
    if tool:
        usage = Usage(estimate_input(prompt), estimate_tokens(tool))
        return Answer("", usage, model, "tool_use", (ToolUse(make_id(), tool, "{}"),))
    text = f'You asked: "{_quote(prompt.text)}". ' + " ".join(_sentences(prompt))
    reason = "end_turn"
    stops = [at for stop in prompt.options.stop if (at := text.find(stop)) >= 0]
    if stops:
        text, reason = text[: min(stops)], "stop_sequence"
    limit = prompt.max_tokens * CHARS_PER_TOKEN
    if len(text) > limit:
        text, reason = text[:limit], "max_tokens"
    return Answer(text, Usage(estimate_input(prompt), estimate_tokens(text)), model, reason)


def _wanted_tool(prompt: Prompt) -> str:
    """The tool that has to be called; '' if none has."""
    choice = prompt.options.tool_choice
    if not prompt.tools or choice in {"", "auto", "none"}:
        return ""
    return prompt.tools[0].name if choice == "required" else choice


def _pieces(text: str) -> list[str]:
    """A few words each; all of the text."""
    words = re.findall(r"\s*\S+\s*", text)
    size = -(-len(words) // _PIECES)
    return ["".join(words[at : at + size]) for at in range(0, len(words), size or 1)]


def _quote(text: str) -> str:
    """From the last paragraph: the caller's input usually follows the template."""
    line = " ".join(text.rstrip().rpartition("\n\n")[2][: _QUOTED_CHARS * 2].split())
    return line if len(line) <= _QUOTED_CHARS else f"{line[:_QUOTED_CHARS]}…"


def _sentences(prompt: Prompt) -> Iterator[str]:
    seed = f"{prompt.system}\0{prompt.text}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(seed, digest_size=8).digest()
    order = cycle(
        _SENTENCES[digest[0] % len(_SENTENCES) :] + _SENTENCES[: digest[0] % len(_SENTENCES)]
    )
    for _, sentence in zip(range(3 + digest[1] % 4), order, strict=False):
        yield sentence
