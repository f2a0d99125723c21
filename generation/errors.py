"""One tree of errors. Each class owns its HTTP status, its problem type and whether a retry helps.

A class's docstring is its problem's title; the instance's message is the detail.
"""

from __future__ import annotations

import math
import traceback
from typing import ClassVar

from generation.records import Attempt, Status


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
        """What a caller is told of a fault in our own code: nothing about it."""
        return cls("this is a fault of the service; its log has more")

    @classmethod
    def problem_type(cls) -> str:
        """RFC 9457 `type`: a name that never changes, not an address."""
        return f"urn:staccato:problem:{cls.slug}"

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")

    @property
    def retry_after_header(self) -> str | None:
        """Whole seconds, at least one; None where the class has no Retry-After."""
        if self.status not in {409, 429, 503} and self.retry_after is None:
            return None
        return str(max(1, math.ceil(self.retry_after or 1)))


def let_go(error: BaseException | None) -> None:
    """Clear the frames that an error came through, when it has been answered or logged.

    They hold the request, its body and often the error itself: a cycle, and `limits.py` has the
    collector of those look seldom.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


# --- the caller's side: no row, no LLM call -------------------------------------------------


class InvalidRequest(StaccatoError):
    """The request is not valid."""

    status = 422
    slug = "invalid-request"


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
    """The request body is not declared to be JSON."""

    status = 415
    slug = "unsupported-media-type"


class UriTooLong(StaccatoError):
    """The address is too long."""

    status = 414
    slug = "uri-too-long"


class HeadersTooLarge(StaccatoError):
    """The request's headers are too large."""

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
    """A page of another site may not call a service that asks for no key."""

    status = 403
    slug = "cross-site"


class UnknownUser(StaccatoError):
    """There is no such user with a prompt."""

    status = 404
    slug = "unknown-user"


class NotFound(StaccatoError):
    """There is nothing here."""

    status = 404
    slug = "not-found"


class StaffOnly(StaccatoError):
    """This page is for staff."""

    status = 403
    slug = "staff-only"


class MissingVariable(InvalidRequest):
    """The prompt template needs a variable that the request does not give."""

    slug = "missing-variable"


class InvalidTemplate(InvalidRequest):
    """The user's prompt template is not valid."""

    slug = "invalid-template"


class KeyInvalid(StaccatoError):
    """The Idempotency-Key is not valid."""

    status = 400
    slug = "idempotency-key-invalid"


class KeyInUse(StaccatoError):
    """A request with this Idempotency-Key is being worked on."""

    status = 409
    slug = "idempotency-key-in-use"
    retryable = True


class KeyReused(StaccatoError):
    """This Idempotency-Key belongs to another request."""

    status = 422
    slug = "idempotency-key-reused"


class EmptyPrompt(InvalidRequest):
    """The prompt is empty."""

    slug = "empty-prompt"


class ModelNotAllowed(InvalidRequest):
    """The provider or model is not one that this service offers."""

    slug = "model-not-allowed"


# --- our side -------------------------------------------------------------------------------


class DatabaseUnavailable(StaccatoError):
    """The database is not available."""

    status = 503
    slug = "database-unavailable"
    retryable = True


class RowRefused(StaccatoError):
    """The database refuses a row's data."""

    slug = "row-refused"


class JournalUnavailable(StaccatoError):
    """The service could not keep a new answer safe."""

    status = 503
    slug = "journal-unavailable"
    retryable = True


class TooManyInFlight(StaccatoError):
    """The service has all the requests it can carry."""

    status = 503
    slug = "too-many-in-flight"
    retryable = True


class Draining(StaccatoError):
    """The service is shutting down."""

    status = 503
    slug = "draining"
    retryable = True


class RuntimeNotOpen(StaccatoError):
    """The service was started without its lifespan."""

    slug = "runtime-not-open"


class ConnectionHeld(StaccatoError):
    """A database connection was held when the LLM was called."""

    slug = "connection-held"


# --- the provider's side: named for the remedy; each leaves a row ----------------------------


class LLMError(StaccatoError):
    """The LLM call failed."""

    status = 502
    slug = "llm-error"
    fate: ClassVar[Status] = "failed"

    def __init__(
        self,
        detail: str,
        *,
        retry_after: float | None = None,
        status_code: int | None = None,
        should_retry: bool | None = None,
        raw_reply: str = "",
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.should_retry = should_retry  # the provider's own word; None where it gave none
        self.status_code = status_code  # what the provider answered; None where it did not
        self.raw_reply = raw_reply  # shortened
        # The client fills these in when it gives up.
        self.provider = ""
        self.model = ""
        self.attempts: tuple[Attempt, ...] = ()


class LLMRefused(LLMError):
    """The provider refuses this request; changing it may help."""

    status = 422
    slug = "llm-refused"


class LLMRateLimited(LLMError):
    """The provider limits our rate."""

    status = 429
    slug = "llm-rate-limited"
    retryable = True


class LLMOverloaded(LLMError):
    """The provider is overloaded."""

    status = 503
    slug = "llm-overloaded"
    retryable = True


class LLMCircuitOpen(LLMOverloaded):
    """The provider has been failing and is left alone for a moment."""

    slug = "llm-circuit-open"


class LLMBusy(LLMOverloaded):
    """The service has all the calls to the provider that it may have at once."""

    slug = "llm-busy"


class LLMTimedOut(LLMError):
    """The provider did not answer in time."""

    status = 504
    slug = "llm-timed-out"
    retryable = True
    fate = "timed_out"


class LLMUnreachable(LLMError):
    """The provider can't be reached, or fails on its side."""

    slug = "llm-unreachable"
    retryable = True


class Abandoned(LLMError):
    """The generation was given up before the LLM answered."""

    status = 503
    slug = "abandoned"
    retryable = True
    fate = "cancelled"


class LLMBadReply(LLMError):
    """The provider's answer can't be read."""

    slug = "llm-bad-reply"
    retryable = True


class LLMMisconfigured(LLMError):
    """The provider can't be used as this service is set up."""

    slug = "llm-misconfigured"


class LLMAuthentication(LLMMisconfigured):
    """The provider refuses the service's own credentials."""

    slug = "llm-authentication"
