"""Errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpResponse

from generation.api import retry_advice
from generation.errors import InvalidRequest, LLMError, LLMRefused, ModelNotAllowed, StaccatoError
from generation.records import Finding
from generation.telemetry.logs import request_id

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
# Codes that clients look for; all others are our own slugs.
_CODES = {
    "unauthorized": "invalid_api_key",
    "model-not-allowed": "model_not_found",
    "llm-rate-limited": "rate_limit_exceeded",
    "rate-limited": "rate_limit_exceeded",
    "budget-exhausted": "insufficient_quota",
}
_CODE_OF_FINDING = {
    Finding.TOO_LONG: "context_length_exceeded",
    Finding.DECLINED: "content_filter",
}


def render(error: StaccatoError) -> HttpResponse:
    """Returns the response to an error."""
    return HttpResponse(
        orjson.dumps(document(error)),
        status=status_of(error),
        content_type="application/json",
        headers=retry_advice.headers(error),
    )


def render_for_both(error: StaccatoError) -> HttpResponse:
    """The same for an address that clients of Anthropic's protocol ask, too: they find what they
    look for in it."""
    body = {"type": "error", **document(error), "request_id": request_id.get()}
    response = render(error)
    response.content = orjson.dumps(body)
    return response


def document(error: StaccatoError) -> dict[str, Any]:
    param = None
    if isinstance(error, ModelNotAllowed):
        param = "model"
    elif isinstance(error, InvalidRequest) and error.faults:
        param = error.faults[0]["where"]
    status = status_of(error)
    return {
        "error": {
            "message": error.detail,
            "type": _TYPES.get(status)
            or ("invalid_request_error" if status < 500 else "server_error"),
            "param": param,
            "code": _code(error),
            **error.members,
        }
    }


def status_of(error: StaccatoError) -> int:
    """Vendors have no 422: their clients know a request that is not valid by its 400."""
    if isinstance(error, ModelNotAllowed):
        return 404
    return 400 if isinstance(error, InvalidRequest | LLMRefused) else error.status


def _code(error: StaccatoError) -> str:
    if isinstance(error, LLMError) and error.finding in _CODE_OF_FINDING:
        return _CODE_OF_FINDING[error.finding]
    return code_of(error.slug)


def code_of(slug: str) -> str:
    return _CODES.get(slug, slug)
