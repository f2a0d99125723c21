"""What the OpenAPI documents of other vendors' dialects have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation import errors
from generation.pipeline import idempotency

if TYPE_CHECKING:
    from collections.abc import Callable

USER_NOT_NAMED = errors.UserNotNamed(
    "this API key is not a single user's, so the base URL has to name the user: …/u/{user_id}/v1"
)
EXAMPLES: tuple[errors.StaccatoError, ...] = (
    errors.MalformedBody("the body is not valid JSON: unexpected end of data"),
    USER_NOT_NAMED,
    errors.InvalidRequest("messages.0.role: is missing"),
    errors.ParameterNotSupported("anthropic has no place for logit_bias in a request"),
    errors.Unauthorized("the API key is unknown or revoked"),
    errors.UserForbidden("this API key may not generate for user 7"),
    errors.UnknownUser("user 99 does not exist or has no prompt"),
    errors.ModelNotAllowed("gpt-x is not offered here; these are: openai:gpt-6-luna"),
    errors.MethodNotAllowed("the address does not take this method", allow="POST"),
    errors.BodyTooSlow("the body did not arrive in 30 s"),
    errors.IdempotencyKeyInUse(
        "the first request with this Idempotency-Key is still being worked on", retry_after=1
    ),
    errors.BodyTooLarge("the body is larger than 33554432 bytes"),
    errors.UriTooLong("path and query are longer than 8192 bytes"),
    errors.UnsupportedMediaType("the body's Content-Type is not application/json"),
    errors.HeadersTooLarge("there are more than 100 headers or 32768 bytes of them"),
    errors.LLMRefused("openai refuses the request: max_tokens is too large"),
    errors.IdempotencyKeyReused(
        "this Idempotency-Key was sent with another request; use a new one"
    ),
    errors.LLMRateLimited("openai limits our rate", retry_after=12),
    errors.StaccatoError.from_bug(),
    errors.LLMUnreachable("openai can't be reached"),
    errors.TooManyInFlight("5000 requests are in flight", retry_after=1),
    errors.LLMTimedOut("openai did not answer within 30 s"),
)
HEADERS: list[dict[str, Any]] = [
    {
        "in": "header",
        "name": "Idempotency-Key",
        "description": "Makes the request safe to repeat for 24 hours: 1 to 255 visible ASCII"
        " characters, one key for one request.",
        "schema": {"type": "string", "pattern": idempotency.KEY_PATTERN},
    },
]


def request_body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"required": True, "content": content}


def answer(example: object, events: str = "") -> dict[str, Any]:
    """The response 200. `events`: an example of the answer as a stream."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"type": "object"}, "example": example}
    }
    if events:
        content["text/event-stream"] = {"schema": {"type": "string"}, "example": events}
    return {"description": "OK", "content": content}


def refusals(
    document: Callable[[errors.StaccatoError], dict[str, Any]],
    status_of: Callable[[errors.StaccatoError], int],
    examples: tuple[errors.StaccatoError, ...] = EXAMPLES,
) -> dict[int, Any]:
    """The responses to errors, with an example for each kind that has a status."""
    by_status: dict[int, list[errors.StaccatoError]] = {}
    for error in examples:
        by_status.setdefault(status_of(error), []).append(error)
    return {
        status: {
            "description": "; ".join(type(error).title() for error in kinds),
            "content": {
                "application/json": {
                    "schema": {"type": "object", "required": ["error"]},
                    "examples": {
                        error.slug: {"summary": type(error).title(), "value": document(error)}
                        for error in kinds
                    },
                }
            },
        }
        for status, kinds in sorted(by_status.items())
    }
