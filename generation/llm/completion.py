"""One completion: what its attempts share, and what it brought."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from generation.errors import release_frames

if TYPE_CHECKING:
    from generation.errors import LLMError
    from generation.records import Attempt, Prompt, Reply


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class CompletionContext:
    """One prompt's way through providers and attempts.

    It outlives a cancelled completion, so that the log row still has the attempts.
    """

    prompt: Prompt
    idempotency_key: str
    deadline: float  # by the event loop's clock
    attempts: list[Attempt] = field(default_factory=list)

    def succeeded(self, reply: Reply, provider: str, model: str) -> Outcome:
        return Outcome(reply, None, provider, model, tuple(self.attempts))

    def failed(self, error: LLMError, partial: Reply | None = None) -> Outcome:
        """`partial` is what was paid for all the same."""
        release_frames(error)  # as a value, it outlives them
        asked = self.attempts[-1] if self.attempts else self.prompt
        return Outcome(partial, error, asked.provider, asked.model, tuple(self.attempts))
