"""A provider inside the process: no network, no key, no cost. It fails as often as you ask."""

from __future__ import annotations

import asyncio
import hashlib
import random
from itertools import cycle
from typing import TYPE_CHECKING

from generation.llm import policy
from generation.llm.providers.base import Answer
from generation.records import Finding, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from generation.conf import Settings
    from generation.errors import LLMError
    from generation.records import Prompt

_CHARS_PER_TOKEN = 4  # the usual rule of thumb for English
_QUOTED_CHARS = 120
_REJECTION_S = 0.05  # providers reject quickly

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

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:  # noqa: ARG002  # the base's signature
        fault = self._draw_fault()
        if fault == "timeout":
            await asyncio.Event().wait()
        if fault is not None and fault.isdigit():
            await asyncio.sleep(_REJECTION_S)
            raise _rejection(int(fault))
        await asyncio.sleep(self._random.uniform(*self._latency_s))
        if fault == "malformed":
            raise policy.to_error(
                Finding.GARBLED, "simulated: the reply is not JSON", status_code=200
            )
        return _answer(prompt, model)

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
    text = f'You asked: "{_quote(prompt.text)}". ' + " ".join(_sentences(prompt))
    limit = prompt.max_tokens * _CHARS_PER_TOKEN
    return Answer(
        text=text[:limit],
        usage=Usage(_tokens(prompt.system) + _tokens(prompt.text), _tokens(text[:limit])),
        model=model if model.startswith("simulated") else f"simulated-{model}",
        stop_reason="end_turn" if len(text) <= limit else "max_tokens",
    )


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


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARS_PER_TOKEN)
