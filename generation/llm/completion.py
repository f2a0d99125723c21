"""One completion: what its attempts share, and what it brought."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from generation.errors import release_frames
from generation.records import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.errors import LLMError
    from generation.llm.streamed_attempt import Relay, StreamedAttempt
    from generation.records import Attempt, Prompt, Reply, Usage


@record
class Outcome:
    """What a completion brought: a reply, an error, or both if an unusable reply was paid for."""

    reply: Reply | None
    error: LLMError | None
    provider: str  # the one that answered, else the one asked last
    model: str  # as the provider names it, if it answered
    attempts: tuple[Attempt, ...]

    def require_reply(self) -> Reply:
        """Returns the reply. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        if self.reply is None:
            raise AssertionError("an outcome has a reply or an error")
        return self.reply


class Meter(Protocol):
    """Counts what the attempts of one completion may cost against its caller's limits. What the
    first attempt may cost is reserved before the completion begins."""

    async def extend(self, provider: str, model: str) -> bool:
        """Reserves what another attempt may cost. Returns whether the limits allow it."""

    def sent(self, provider: str, model: str) -> None:
        """An attempt is about to reach its provider."""

    def answered(self, model: str, usage: Usage) -> None:
        """It was answered, by a model of this name."""

    def failed(self, error: LLMError) -> None:
        """It brought an error. Of one that is cancelled, nobody says anything."""


def _as_it_is(_provider: str, _model: str, reply: Reply, _asked: str) -> Reply:
    return reply


@dataclass(slots=True)
class CompletionContext:
    """One prompt's way through providers and attempts.

    It outlives a cancelled completion, so that the log row still has the attempts, and what the
    last of them has brought.
    """

    prompt: Prompt
    idempotency_key: str
    deadline: float  # by the event loop's clock; of a stream, for its first content
    priced: Callable[[str, str, Reply, str], Reply] = _as_it_is  # see `LLMClient.priced`
    relay: Relay | None = None  # None: the answer is wanted whole
    meter: Meter | None = None  # None: nothing limits it
    streamed: StreamedAttempt | None = None  # the last one
    began: float = 0.0  # by the event loop's clock
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def is_committed(self) -> bool:
        """A reader has the beginning of the answer, so nobody else can be asked."""
        return self.relay is not None and self.relay.first_at is not None

    def partial(self) -> Reply | None:
        """What a cancelled stream has brought, with its price; None if nothing."""
        streamed = self.streamed
        reply = streamed.partial() if streamed else None
        if streamed is None or reply is None:
            return None
        model = streamed.transcript.model or streamed.model
        return self.priced(streamed.provider, model, reply, streamed.model)

    def succeeded(self, reply: Reply, provider: str, model: str) -> Outcome:
        return Outcome(reply, None, provider, model, tuple(self.attempts))

    def failed(self, error: LLMError, partial: Reply | None = None) -> Outcome:
        """`partial` is what was paid for all the same."""
        release_frames(error)  # as a value, it outlives them
        asked = self.attempts[-1] if self.attempts else self.prompt
        return Outcome(partial, error, asked.provider, asked.model, tuple(self.attempts))
