"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from django.http import HttpResponse

from generation.errors import InvalidRequest, LLMError, StaccatoError

CONTENT_TYPE = "application/problem+json"


def render_problem(error: StaccatoError) -> HttpResponse:
    """The response to an error, with the headers that its class asks for."""
    return HttpResponse(
        orjson.dumps(problem_document(error)),
        status=error.status,
        content_type=CONTENT_TYPE,
        headers=error.headers,
    )


def problem_document(error: StaccatoError) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": error.problem_type(),
        "title": error.title(),
        "status": error.status,
        "detail": error.detail,
    }
    if isinstance(error, InvalidRequest) and error.faults:
        document["errors"] = error.faults
    return {**document, **error.members}


def stored_problem(slug: str, detail: str) -> dict[str, Any]:
    """The document of an error whose row has no more than its slug and its detail."""
    kind = _kinds().get(slug, LLMError)
    document = {"type": kind.problem_type(), "title": kind.title(), "status": kind.status}
    return {**document, "detail": detail}


@cache
def _kinds() -> dict[str, type[StaccatoError]]:
    """By slug. A subclass without a slug of its own has its base's, and is passed over."""
    kinds: dict[str, type[StaccatoError]] = {}
    found = [StaccatoError]
    while found:
        kind = found.pop()
        kinds.setdefault(kind.slug, kind)
        found += kind.__subclasses__()
    return kinds
