"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpResponse

from generation.errors import InvalidRequest, StaccatoError

CONTENT_TYPE = "application/problem+json"


def render_problem(error: StaccatoError) -> HttpResponse:
    """The response to an error, with the headers that its class asks for."""
    document: dict[str, Any] = {
        "type": error.problem_type(),
        "title": error.title(),
        "status": error.status,
        "detail": error.detail,
    }
    if isinstance(error, InvalidRequest) and error.faults:
        document["errors"] = error.faults
    return HttpResponse(
        orjson.dumps(document),
        status=error.status,
        content_type=CONTENT_TYPE,
        headers=error.headers,
    )
