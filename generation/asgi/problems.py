"""Errors → RFC 9457 problem documents."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from django.http import HttpResponse

from generation.errors import StaccatoError

CONTENT_TYPE = "application/problem+json"


def respond(error: StaccatoError, **extensions: Any) -> HttpResponse:
    """The response to an error, with Retry-After where a retry helps."""
    response = document(
        error.status, type(error).problem_type(), type(error).title(), error.detail, **extensions
    )
    if error.retry_after_header is not None:
        response["Retry-After"] = error.retry_after_header
    if error.challenge:
        response["WWW-Authenticate"] = error.challenge
    return response


def from_plain(response: HttpResponse) -> HttpResponse:
    """A problem document in place of a framework's own error page (404, 405, …)."""
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return response
    if not response.get("Content-Type", "").startswith("text/"):
        return response
    status = HTTPStatus(response.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    problem = document(
        status, f"urn:staccato:problem:{slug}", status.phrase, status.description or status.phrase
    )
    if "Allow" in response:
        problem["Allow"] = response["Allow"]
    return problem


def document(status: int, kind: str, title: str, detail: str, **extensions: Any) -> HttpResponse:
    return HttpResponse(
        orjson.dumps(
            {"type": kind, "title": title, "status": int(status), "detail": detail, **extensions}
        ),
        status=status,
        content_type=CONTENT_TYPE,
    )
