"""What the API's documentation says beyond the schemas: an example of every answer and error."""

from __future__ import annotations

from typing import Any

from generation import errors
from generation.api.native.examples import ANSWER, EVENTS, EXAMPLES, LIMITS, STORED
from generation.asgi.problems import CONTENT_TYPE
from generation.pipeline import idempotency

PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457; some kinds have members of their own.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "The kind of problem: a name that is stable."},
        "title": {"type": "string", "description": "What the kind means."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What went wrong this time."},
    },
}

# Read from the request itself: as parameters of the view they would cost it a twentieth.
_HEADERS: list[dict[str, Any]] = [
    {
        "in": "header",
        "name": "Idempotency-Key",
        "description": "Makes the request safe to repeat for 24 hours: 1 to 255 visible ASCII"
        " characters, one key for one request.",
        "schema": {"type": "string", "pattern": idempotency.KEY_PATTERN},
    },
    {
        "in": "header",
        "name": "X-Request-ID",
        "description": "Stored in the log row and returned if it is 1 to 128 visible ASCII"
        " characters; otherwise a new one is made.",
        "schema": {"type": "string"},
    },
]


_EVENT_STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "Server-sent events: `start`, `delta`, then `usage` and `done` (the"
            " whole answer), or `error` (a problem document). docs/api.md has their members.",
        },
        "example": EVENTS,
    }
}
_LAST_EVENT_ID: dict[str, Any] = {
    "in": "header",
    "name": "Last-Event-ID",
    "description": "The `id` of the last event that was received; without it, all are sent.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,12}$"},
}
_OF_READING = (
    errors.Unauthorized("the API key is unknown or revoked"),
    errors.CrossSite("this request comes from another site's page"),
    errors.NotFound("there is no such generation"),
    errors.UriTooLong("path and query are longer than 8192 bytes"),
    errors.HeadersTooLarge("there are more than 100 headers or 32768 bytes of them"),
    errors.BodyTooLarge("the body is larger than 1048576 bytes"),
    errors.DatabaseUnavailable("the database can't be reached", retry_after=1),
    errors.AnswerUnreadable("encrypted with key 2026-01, which is not configured"),
)


def describe_generate() -> dict[str, Any]:
    """`openapi_extra` of the generate operation."""
    answer = {"content": {"application/json": {"example": ANSWER}, **_EVENT_STREAM}}
    return {"parameters": _HEADERS, "responses": {200: answer, **_by_status(*EXAMPLES)}}


def describe_stored() -> dict[str, Any]:
    answer = {"content": {"application/json": {"example": STORED}}}
    return {"responses": {200: answer, **_by_status(*_OF_READING)}}


def describe_events() -> dict[str, Any]:
    """The generation may still fail before its first content, with any of its errors."""
    events = {"description": "OK", "content": _EVENT_STREAM}
    kinds = {type(error): error for error in (*_OF_READING, *EXAMPLES)}
    return {
        "parameters": [_LAST_EVENT_ID],
        "responses": {200: events, **_by_status(*kinds.values())},
    }


def describe_limits() -> dict[str, Any]:
    kinds = [error for error in _OF_READING if not isinstance(error, errors.AnswerUnreadable)]
    answer = {"content": {"application/json": {"example": LIMITS}}}
    return {"responses": {200: answer, **_by_status(*kinds)}}


def describe_pool(example: Any) -> dict[str, Any]:
    refusals = _by_status(
        errors.Unauthorized("the API key is unknown or revoked"),
        errors.StaffOnly("log in to the admin as a member of the staff, or send a service's key"),
        errors.NotFound("this page is switched off"),
        errors.UriTooLong("path and query are longer than 8192 bytes"),
        errors.HeadersTooLarge("there are more than 100 headers or 32768 bytes of them"),
        errors.DatabaseUnavailable("the database can't be reached", retry_after=1),
    )
    return {
        "security": [{}, {"Bearer": []}, {"XApiKey": []}],
        "responses": {200: {"content": {"application/json": {"example": example}}}, **refusals},
    }


def _by_status(*examples: errors.StaccatoError) -> dict[int, Any]:
    return {
        status: _problems([error for error in examples if error.status == status])
        for status in sorted({error.status for error in examples})
    }


def _problems(examples: list[errors.StaccatoError]) -> dict[str, Any]:
    """One response with an example for each kind of problem that has its status."""
    response: dict[str, Any] = {
        "description": "; ".join(type(error).title() for error in examples),
        "content": {
            CONTENT_TYPE: {
                "schema": PROBLEM,
                "examples": {
                    error.slug: {
                        "summary": type(error).title(),
                        "value": {
                            "type": type(error).problem_type(),
                            "title": type(error).title(),
                            "status": error.status,
                            "detail": error.detail,
                            **error.members,
                        },
                    }
                    for error in examples
                },
            }
        },
    }
    headers = {}
    if any(error.retry_after_header for error in examples):
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    if any(error.challenge for error in examples):
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return response | ({"headers": headers} if headers else {})
