"""Errors of phase 2, named for the remedy: each leaves a log row."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from generation.errors.base import StaccatoError

if TYPE_CHECKING:
    from generation.records import Finding, Reply, Status


class LLMError(StaccatoError):
    """The LLM call failed."""

    status = 502
    slug = "llm-error"
    row_status: ClassVar[Status] = "failed"  # of the log row

    def __init__(  # noqa: PLR0913  # facts, most of them optional
        self,
        detail: str,
        *,
        retry_after: float | None = None,
        status_code: int | None = None,
        should_retry: bool | None = None,
        raw_reply: str = "",
        finding: Finding | None = None,
        partial: Reply | None = None,
        said: str = "",
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.finding = finding  # None: not a provider's, e.g. a bug of ours
        self.partial = partial  # what was paid for all the same: tokens, perhaps some text
        self.said = said  # by the provider, for an operator; shortened
        self.should_retry = should_retry  # the provider's x-should-retry; None if it sent none
        self.status_code = status_code  # HTTP status of the provider's reply; None if none came
        self.raw_reply = raw_reply  # shortened


class LLMRefused(LLMError):
    """The provider rejects this request; changing it may help."""

    status = 422
    slug = "llm-refused"


class LLMRateLimited(LLMError):
    """The provider's rate limit is reached."""

    status = 429
    slug = "llm-rate-limited"
    retryable = True


class LLMOverloaded(LLMError):
    """The provider is overloaded."""

    status = 503
    slug = "llm-overloaded"
    retryable = True


class LLMCircuitOpen(LLMOverloaded):
    """The provider has been failing, so calls to it are paused for a moment."""

    slug = "llm-circuit-open"


class LLMBusy(LLMOverloaded):
    """The service has reached its limit of concurrent calls to the provider."""

    slug = "llm-busy"


class LLMTimedOut(LLMError):
    """The provider did not answer in time."""

    status = 504
    slug = "llm-timed-out"
    retryable = True
    row_status = "timed_out"


class LLMUnreachable(LLMError):
    """The provider can't be reached, or has failed."""

    slug = "llm-unreachable"
    retryable = True


class StreamBroken(LLMUnreachable):
    """The provider broke off in the middle of its answer."""

    slug = "stream-broken"


class StreamIdle(LLMTimedOut):
    """The provider fell silent in the middle of its answer."""

    slug = "stream-idle"


class StreamTooLong(LLMTimedOut):
    """The provider's answer did not end in time."""

    slug = "stream-too-long"


class Abandoned(LLMError):
    """The generation was abandoned before its answer was complete."""

    status = 503
    slug = "abandoned"
    retryable = True
    row_status = "cancelled"


class AbandonedByClient(Abandoned):
    """The client left before the answer was complete."""

    slug = "client-left"


class AbandonedByShutdown(Abandoned):
    """The service shut down before the answer was complete."""

    slug = "drained"


class OwnCallFailed(LLMError):
    """The project's own LLM call failed."""

    slug = "own-call-failed"


class NoReply(LLMError):
    """The project's own LLM call brought no reply."""

    slug = "no-reply"


class LLMBadReply(LLMError):
    """The provider's reply can't be read."""

    slug = "llm-bad-reply"
    retryable = True


class LLMMisconfigured(LLMError):
    """The provider can't be used with the service's present settings."""

    slug = "llm-misconfigured"


class LLMAuthentication(LLMMisconfigured):
    """The provider rejects the service's credentials."""

    slug = "llm-authentication"
