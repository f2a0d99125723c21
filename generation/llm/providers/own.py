"""Providers of a project's own, which STACCATO["PROVIDERS"] names by their dotted path.

`Provider` is what a project writes. `OwnProvider` makes of it what the client asks, so that
retries, the circuit breaker, prices and the log are the same as for ours.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, get_args

import httpx

from generation.conf.dotted_paths import load_class
from generation.conversation import NO_OPTIONS, Text
from generation.errors import LLMError
from generation.events import Content, TextDelta
from generation.llm import policy
from generation.llm.providers.base import Answer
from generation.llm.providers.parsing import UnusableReply, require_text
from generation.llm.providers.transport_errors import to_llm_error
from generation.llm.transcript import kept_blocks
from generation.records import Finding
from generation.tasks import in_own_task

if TYPE_CHECKING:
    from generation.conf import Settings
    from generation.llm.streamed_attempt import StreamedAttempt
    from generation.llm.transcript import Transcript
    from generation.records import Prompt

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
_CAUSES = 10  # of an error, at most
_PIECE_CHARS = 24  # a piece's size besides its text
_WHOLE = frozenset({"end_turn", "stop_sequence"})
_SAID_OF_A_REPLY = frozenset({Finding.DECLINED, Finding.CUT_OFF, Finding.EMPTY, Finding.UNREADABLE})
_CONTENT = get_args(Content)

Piece: TypeAlias = str | Content | Answer


class Provider(Protocol):
    """An LLM of your own. Inherit from it, and write at least `default_model` and `ask()`.

    One instance is made in each process, without arguments, in the event loop that asks it.
    """

    default_model: ClassVar[str]  # where nobody names one
    price_list: ClassVar[str] = ""  # a provider's id in genai-prices, or its API's address

    @abstractmethod
    async def ask(self, prompt: Prompt, model: str) -> Answer:
        """One attempt. Returns the whole answer.

        Raise an `LLMError` of `generation.errors` with what its class means: an
        `LLMRateLimited("…", retry_after=2)` is tried again, an `LLMRefused` is not. Errors of httpx
        and of SDKs that have a `status_code` are understood, as are `TimeoutError` and `OSError`.
        Any other exception is a bug: it is logged, and not tried again.
        """
        ...

    async def stream(self, prompt: Prompt, model: str) -> AsyncIterator[Piece]:
        """One attempt whose answer is handed on while it comes.

        Yield texts, or events of `generation.events`, and last an `Answer`, whose text is taken
        only if no piece came before. An answer that ends without one counts as broken off.
        """
        yield await self.ask(prompt, model)

    def unsupported(self, prompt: Prompt) -> str:
        """Returns what of the prompt you have no place for, as a noun; '' if nothing.

        Such a request is refused before it costs anything. By default that is all but one text:
        say less once you send `prompt.messages`, `prompt.tools` and `prompt.options`.
        """
        if prompt.tools:
            return "tools"
        if prompt.options is not NO_OPTIONS:
            return "options"
        parts = [part for message in prompt.messages for part in message.parts]
        is_one_text = len(parts) <= 1 and all(isinstance(part, Text) for part in parts)
        return "" if is_one_text else "a conversation"

    async def aclose(self) -> None:
        """The process ends: close what you have opened."""


class OwnProvider:
    """One of these, as our client asks it; `named()` makes the class for one of the settings."""

    name: str
    path: ClassVar[str]
    default_model: str
    price_list: str
    url = ""  # we don't know it

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:  # noqa: ARG003  # the base's signature
        """`auto` chooses among ours."""
        return False

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:  # noqa: ARG003  # the base's signature
        return ""

    @classmethod
    def address(cls, settings: Settings) -> str:  # noqa: ARG003  # the base's signature
        return ""

    def __init__(self, settings: Settings, _: httpx.AsyncBaseTransport) -> None:
        self._max_chars = settings.llm_max_reply_bytes
        self._own: Provider = _load(self.path)()

    def unknown_parameter(self, prompt: Prompt) -> str:
        verbatim = prompt.verbatim
        if verbatim is not None and (verbatim.path or verbatim.unsaid):
            return verbatim.path or verbatim.unsaid[0]
        return self._own.unsupported(prompt)

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:  # noqa: ARG002  # the base's signature
        try:
            answer = await self._own.ask(prompt, model)
            return self._checked(answer, model)
        except Exception as error:
            raise self._understood(error) from error

    async def stream(
        self,
        prompt: Prompt,
        model: str,
        idempotency_key: str,  # noqa: ARG002  # the base's signature
        attempt: StreamedAttempt,
    ) -> Answer:
        try:
            last = await in_own_task(self._follow(prompt, model, attempt))
            if not attempt.transcript.events:
                answer = self._checked(last, model)
                await attempt.put_whole(answer)
                return answer
            return self._checked(_joined(attempt.transcript, last), model)
        except Exception as error:
            understood = self._understood(error)
            if attempt.is_committed and understood.finding not in _SAID_OF_A_REPLY:
                raise attempt.broken(understood.detail, 200, "") from error
            raise understood from error

    async def aclose(self) -> None:
        """Raises nothing."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._own.aclose()
        except Exception:
            logger.exception("%s could not be closed", self.path)

    async def _follow(self, prompt: Prompt, model: str, attempt: StreamedAttempt) -> Answer:
        """Hand on what comes. Returns the `Answer` at its end."""
        left = self._max_chars
        pieces = self._own.stream(prompt, model)
        try:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    attempt.note_stop(CLOSE_S)
                    return piece
                event = TextDelta(piece) if isinstance(piece, str) else piece
                if not isinstance(event, _CONTENT):
                    raise TypeError(f"{self.path}.stream() yielded {type(piece).__name__}")
                left -= len(getattr(event, "text", "")) + _PIECE_CHARS
                if left < 0:
                    raise UnusableReply(f"{self.name} sent more than LLM_MAX_REPLY_BYTES")
                if event == TextDelta(""):
                    continue
                attempt.transcript.events.append(event)
                await attempt.put_news()
        finally:
            close: Any = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        raise UnusableReply(
            f"{self.name} broke off before its answer was complete", Finding.BROKEN_OFF
        )

    def _checked(self, answer: Answer, model: str) -> Answer:
        if not isinstance(answer, Answer):
            raise TypeError(f"{self.path} returned {type(answer).__name__}, not an Answer")
        if len(answer.text) > self._max_chars:
            raise UnusableReply(f"{self.name} sent more than LLM_MAX_REPLY_BYTES")
        answer.model = answer.model or model
        return require_text(self.name, answer)

    def _understood(self, error: Exception) -> LLMError:
        """Returns what an error means to retries and circuit. Raises a bug as it is."""
        if isinstance(error, LLMError):
            finding = policy.finding_of(type(error))
            if error.finding is not None or finding is None:
                return error
            return policy.to_error(finding, error.detail, retry_after=error.retry_after)
        if isinstance(error, UnusableReply):
            partial = error.answer.as_partial() if error.answer else None
            return policy.to_error(error.finding, str(error), status_code=200, partial=partial)
        for each in _chain(error):
            if understood := _of_a_library(each, self.name):
                return understood
        raise error


@lru_cache(maxsize=64)
def named(name: str, path: str) -> type[OwnProvider]:
    """Returns the class that our client makes. Raises `ValueError` with the reason if there is
    none at the path."""
    own = _load(path)
    facts = {"default_model": own.default_model, "price_list": own.price_list}
    return type("OwnProvider", (OwnProvider,), {"name": name, "path": path, **facts})


def _load(path: str) -> type[Provider]:
    own = load_class(path, Provider)
    if not (isinstance(getattr(own, "default_model", None), str) and own.default_model):
        raise ValueError(f"{path} has no default_model: the model to ask where nobody names one")
    return own


def _joined(transcript: Transcript, last: Answer) -> Answer:
    """Returns the answer of a stream: its pieces, and what its end says of them."""
    transcript.model = last.model
    transcript.usage, transcript.stop_reason = last.usage, last.stop_reason
    blocks = transcript.blocks()
    return Answer(
        text=transcript.text,
        usage=last.usage,
        model=last.model,
        stop_reason=last.stop_reason,
        blocks=kept_blocks(blocks),
        is_plain=last.stop_reason in _WHOLE,
        raw_reply=last.raw_reply,
    )


def _of_a_library(error: BaseException, name: str) -> LLMError | None:
    """Returns what an error of an SDK or of a transport means; None if it is neither."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if isinstance(status, int):
        headers = getattr(response, "headers", {})
        return policy.to_error(
            policy.find(status),
            f"{name} answered {status}",
            status_code=status,
            retry_after=policy.retry_after(headers, datetime.now(UTC)),
        )
    if isinstance(error, httpx.HTTPError):
        return to_llm_error(error, name)
    if isinstance(error, TimeoutError):
        return policy.to_error(Finding.TIMED_OUT, f"{name} did not answer in time")
    if isinstance(error, OSError):
        return policy.to_error(Finding.UNREACHABLE, f"no connection to {name}")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes: SDKs wrap those of their transport."""
    each: BaseException | None = error
    for _ in range(_CAUSES):
        if each is None:
            return
        yield each
        each = each.__cause__
