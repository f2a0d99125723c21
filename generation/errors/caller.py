"""The caller's fault: no LLM is called, and no row is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation.errors.base import StaccatoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


class UserNotNamed(StaccatoError):
    """The request names no user, and its API key is not a single user's."""

    status = 400
    slug = "user-not-named"


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
