"""One attempt whose answer is handed on while it comes: what has come, and how long it may take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from generation.conversation import Text, Thinking, ToolUse
from generation.events import (
    Start,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolEnd,
    ToolStart,
)
from generation.llm import policy
from generation.llm.transcript import Transcript, kept_blocks
from generation.records import Finding, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from generation.errors import LLMError
    from generation.events import Content, Event
    from generation.llm.providers.base import Answer
    from generation.records import Prompt
    from generation.timing import FairTimeout


class Relay(Protocol):
    """Takes the events of an answer to its readers."""

    first_at: float | None  # when the first events were put; None: none were

    @property
    def has_room(self) -> bool: ...

    def put(self, events: list[Event]) -> None:
        """Takes what is new at the end of the list, the same at each call, and may join what is
        before."""

    async def room(self) -> None:
        """Waits while a reader lags."""


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """How long a stream may take, in seconds."""

    idle: float  # between two bytes
    total: float


class StreamedAttempt:
    """Its first content commits the answer: nobody else is asked after that.

    Until then, the attempt's limit holds for the first event of any kind, and what is left of
    LLM_TIMEOUT for the first content.
    """

    def __init__(  # noqa: PLR0913  # facts
        self,
        prompt: Prompt,
        provider: str,
        model: str,
        *,
        relay: Relay,
        times: StreamTimes,
        limit: FairTimeout,
        deadline: float,
        on_commit: Callable[[], None],
    ) -> None:
        self.prompt = prompt
        self.provider = provider
        self.model = model  # as it was asked for
        self.transcript = Transcript()
        self.is_committed = False
        self.relay = relay
        self._times = times
        self._limit = limit
        self._clock = asyncio.get_running_loop().time
        self._end = deadline  # however alive it is
        self._total_end = self._clock() + times.total
        self._on_commit = on_commit
        self._put = 0  # of the transcript's events: those that the relay has

    def note_life(self) -> None:
        """Something has come after the first event, though nothing of the answer."""
        self._limit.move_to(min(self._clock() + self._times.idle, self._end))

    def put_news(self) -> bool:
        """Hand on what is new in the transcript. Returns whether anything was."""
        events = self.transcript.events
        if len(events) == self._put:
            return False
        if not self.is_committed:
            self.is_committed = True
            self._end = self._total_end
            transcript = self.transcript
            model = transcript.model or self.model
            extras = tuple(transcript.opening)
            events.insert(0, Start(model, self.provider, transcript.usage, extras))
            self._on_commit()
        self.relay.put(events)
        self._put = len(events)
        self.note_life()
        return True

    async def room(self) -> None:
        """Waits while a reader lags."""
        if not self.relay.has_room:
            self._limit.move_to(self._end)  # meanwhile, the provider is not idle
            await self.relay.room()
            self.note_life()

    async def put_whole(self, answer: Answer) -> None:
        """Hand on an answer that came whole."""
        transcript = self.transcript
        transcript.model, transcript.usage = answer.model, answer.usage
        transcript.events += _to_events(answer)
        transcript.stop_reason = answer.stop_reason
        self.put_news()
        await self.room()

    def note_stop(self, seconds: float) -> None:
        """The answer is whole, whatever comes in the seconds that its tail may take."""
        self._limit.move_to(self._clock() + 2 * seconds)

    def partial(self) -> Reply | None:
        """Returns what the unfinished attempt has brought, without a price; None if nothing."""
        transcript = self.transcript
        if not transcript.events and not transcript.usage.known_tokens:
            return None
        return Reply(
            text=transcript.text,
            usage=transcript.estimated_usage(self.prompt),
            stop_reason=transcript.stop_reason or "",
            blocks=kept_blocks(transcript.blocks()),
        )

    def paid_part(self) -> Reply | None:
        """Returns the part of an answer that failed. Before its first content there is none: what
        little may have been charged shall not keep us from asking again."""
        return self.partial() if self.is_committed else None

    def broken(self, detail: str, status: int, raw_reply: str) -> LLMError:
        """Returns the error of a stream that ended before its answer was whole."""
        if self.is_committed:
            return policy.stream_broken(
                detail, status_code=status, raw_reply=raw_reply, partial=self.partial()
            )
        return policy.to_error(Finding.FAILED, detail, status_code=status, raw_reply=raw_reply)

    def timed_out(self) -> LLMError:
        """Returns the error of an attempt whose limit has passed."""
        if not self.is_committed:
            return policy.to_error(Finding.TIMED_OUT, f"{self.provider} did not answer in time")
        is_idle = self._clock() < self._end
        if is_idle:
            seconds = f"{self._times.idle:g} s"
            detail = f"{self.provider} sent nothing for {seconds} in the middle of its answer"
        elif self.relay.has_room:
            detail = f"{self.provider} did not end its answer within {self._times.total:g} s"
        else:
            detail = f"the client did not read the answer within {self._times.total:g} s"
        partial = self.partial()
        return policy.stream_timed_out(detail, is_idle=is_idle, status_code=200, partial=partial)


def _to_events(answer: Answer) -> Iterator[Content]:
    for block in answer.blocks or (Text(answer.text),):
        match block:
            case Text(text):
                yield TextDelta(text)
            case Thinking(text, signature, is_redacted):
                yield ThinkingDelta(text, signature, is_redacted)
            case ToolUse():
                yield ToolStart(block.id, block.name)
                yield ToolArguments(block.arguments)
                yield ToolEnd()
