"""One tree of errors. Each class owns its HTTP status, its problem type and whether a retry helps.

The docstring of a class is the title of its RFC 9457 problem; an instance's message is the detail.
Nobody changes an instance after it is raised.
"""

from __future__ import annotations

import math
import traceback
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from generation.records import Finding, Reply, Status


class StaccatoError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    retryable: ClassVar[bool] = False
    challenge: ClassVar[str] = ""  # WWW-Authenticate

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after  # seconds

    @classmethod
    def from_bug(cls) -> StaccatoError:
        """The error shown to a caller after a fault in our own code: it reveals nothing."""
        return cls("the service failed because of a bug; its log has the details")

    @classmethod
    def problem_type(cls) -> str:
        """The RFC 9457 `type`: a name that never changes, not an address."""
        return f"urn:staccato:problem:{cls.slug}"

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")

    @property
    def retry_after_header(self) -> str | None:
        """Whole seconds, at least one; None if this error sends no Retry-After."""
        if self.status not in {409, 429, 503} and self.retry_after is None:
            return None
        return str(max(1, math.ceil(self.retry_after or 1)))

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that this error asks for."""
        asked = {"Retry-After": self.retry_after_header, "WWW-Authenticate": self.challenge}
        return {name: value for name, value in asked.items() if value}


def release_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of a handled error and its causes, and the variables in their frames.

    They keep the request body alive, often in a reference cycle, and the cycle collector rarely
    runs while we serve (see `runtime/collector.py`). Both have to go: a task keeps a traceback of
    its own, and a frame refers to its callers, which need not be in the traceback.
    """
    seen: set[int] = set()  # causes and contexts can form a ring
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


# --- the caller's fault: no LLM call, no row -------------------------------------------------


class InvalidRequest(StaccatoError):
    """The request is not valid."""

    status = 422
    slug = "invalid-request"

    def __init__(self, detail: str, *, faults: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.faults = list(faults)  # one for each invalid field: `where` it is and `why`


class BadRequest(StaccatoError):
    """The request can't be read."""

    status = 400
    slug = "bad-request"


class MethodNotAllowed(StaccatoError):
    """The address does not take this method."""

    status = 405
    slug = "method-not-allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "Allow": self.allow}


class MalformedBody(StaccatoError):
    """The request body is not JSON."""

    status = 400
    slug = "malformed-body"


class BodyTooLarge(StaccatoError):
    """The request body is too large."""

    status = 413
    slug = "body-too-large"


class BodyTooSlow(StaccatoError):
    """The request body did not arrive in time."""

    status = 408
    slug = "body-too-slow"


class UnsupportedMediaType(StaccatoError):
    """The Content-Type of the request body is not JSON."""

    status = 415
    slug = "unsupported-media-type"


class UriTooLong(StaccatoError):
    """The path and query are too long."""

    status = 414
    slug = "uri-too-long"


class HeadersTooLarge(StaccatoError):
    """The request headers are too large."""

    status = 431
    slug = "headers-too-large"


class Unauthorized(StaccatoError):
    """The request needs a valid API key."""

    status = 401
    slug = "unauthorized"
    challenge = 'Bearer realm="staccato"'


class UserForbidden(StaccatoError):
    """The API key may not generate for this user."""

    status = 403
    slug = "user-forbidden"


class ModelForbidden(StaccatoError):
    """The API key may not use this model."""

    status = 403
    slug = "model-forbidden"


class CrossSite(StaccatoError):
    """A page of another site may not call a service that requires no API key."""

    status = 403
    slug = "cross-site"


class UnknownUser(StaccatoError):
    """The user does not exist or has no prompt."""

    status = 404
    slug = "unknown-user"


class NotFound(StaccatoError):
    """There is nothing at this address."""

    status = 404
    slug = "not-found"


class StaffOnly(StaccatoError):
    """This page is for staff only."""

    status = 403
    slug = "staff-only"


class MissingVariable(InvalidRequest):
    """The prompt template needs a variable that the request does not provide."""

    slug = "missing-variable"


class InvalidTemplate(InvalidRequest):
    """The user's prompt template is not valid."""

    slug = "invalid-template"


class IdempotencyKeyInvalid(StaccatoError):
    """The Idempotency-Key is not valid."""

    status = 400
    slug = "idempotency-key-invalid"


class IdempotencyKeyInUse(StaccatoError):
    """A request with this Idempotency-Key is still in progress."""

    status = 409
    slug = "idempotency-key-in-use"
    retryable = True


class IdempotencyKeyReused(StaccatoError):
    """This Idempotency-Key was already used for a different request."""

    status = 422
    slug = "idempotency-key-reused"


class EmptyPrompt(InvalidRequest):
    """The prompt is empty."""

    slug = "empty-prompt"


class ModelNotAllowed(InvalidRequest):
    """The service does not offer this provider or model."""

    slug = "model-not-allowed"


class ParameterNotSupported(InvalidRequest):
    """The provider does not know a parameter of the request."""

    slug = "parameter-not-supported"


# --- the service's own fault ----------------------------------------------------------------


class Unavailable(StaccatoError):
    """Something that the service needs is not available at the moment."""

    status = 503
    retryable = True


class DatabaseUnavailable(Unavailable):
    """The database is not available."""

    slug = "database-unavailable"


class PartitionMissing(DatabaseUnavailable):
    """The log has no partition for a row yet. The row is without fault, so it waits."""


class RowRefused(StaccatoError):
    """The database refuses the data of a row."""

    slug = "row-refused"


class JournalUnavailable(Unavailable):
    """The service has no safe place to store a new answer."""

    slug = "journal-unavailable"


class AnswerUnreadable(Unavailable):
    """The stored answer can't be decrypted."""

    slug = "answer-unreadable"


class TooManyInFlight(Unavailable):
    """The service has reached its limit of requests in flight."""

    slug = "too-many-in-flight"


class Draining(Unavailable):
    """The service is shutting down."""

    slug = "draining"


class RuntimeNotOpen(StaccatoError):
    """The service was started without its lifespan."""

    slug = "runtime-not-open"


class ConnectionHeld(StaccatoError):
    """A database connection was held when the LLM was called."""

    slug = "connection-held"


# --- phase 2: named for the remedy; each leaves a log row -------------------------------------


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
