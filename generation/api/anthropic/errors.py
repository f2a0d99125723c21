"""Errors in Anthropic's shape."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpResponse

from generation.api import retry_advice
from generation.errors import InvalidRequest, LLMError, LLMRefused, ModelNotAllowed, StaccatoError
from generation.records import Finding
from generation.telemetry.logs import request_id

_TOO_LONG = "prompt is too long"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def render(error: StaccatoError) -> HttpResponse:
    """Returns the response to an error."""
    return HttpResponse(
        orjson.dumps(document(error)),
        status=status_of(error),
        content_type="application/json",
        headers={**retry_advice.headers(error), "request-id": request_id.get()},
    )


def document(error: StaccatoError) -> dict[str, Any]:
    status = status_of(error)
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": _message(error), **error.members},
        "request_id": request_id.get(),
    }


def _message(error: StaccatoError) -> str:
    """There are no codes, so clients look for words: some shorten the conversation then."""
    is_too_long = isinstance(error, LLMError) and error.finding is Finding.TOO_LONG
    if is_too_long and _TOO_LONG not in error.detail:
        return f"{_TOO_LONG}: {error.detail}"
    return error.detail


def status_of(error: StaccatoError) -> int:
    """Vendors have no 422: their clients know a request that is not valid by its 400."""
    if isinstance(error, ModelNotAllowed):
        return 404
    return 400 if isinstance(error, InvalidRequest | LLMRefused) else error.status
