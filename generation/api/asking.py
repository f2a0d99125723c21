"""From a client's request in another vendor's dialect to a `GenerationRequest`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generation import user_keys
from generation.api import auth, trace_context
from generation.api.base import JSONParser
from generation.conversation import NO_OPTIONS
from generation.errors import BadRequest, InvalidRequest, NotFound, UserNotNamed
from generation.pipeline import idempotency
from generation.records import GenerationRequest, Verbatim
from generation.storable import is_storable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.asgi.request import Request
    from generation.conversation import Message, Options, Tool
    from generation.records import Dialect, Grant, UserKey

# What a row takes of a client's metadata.
MAX_METADATA = 16
MAX_LABEL_CHARS = 64
MAX_VALUE_CHARS = 512

_PARSER = JSONParser()
_FORWARDED_CHARS = 2_000
_FORWARDED = re.compile(r"[\w.,:; -]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the body of a client's request says, read."""

    model: str
    messages: tuple[Message, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    options: Options = NO_OPTIONS
    max_tokens: int | None = None
    is_streamed: bool = False
    is_background: bool = False
    wants_usage: bool = False  # at the end of a stream
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()  # members that a conversation has no place for


def read_body(request: Request) -> dict[str, Any]:
    """Returns the body's JSON object. Raises `MalformedBody` or `InvalidRequest`."""
    body = _PARSER.parse_body(request)
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


def user_of(request: Request) -> UserKey:
    """Returns the user whom the base URL names, or the only one whom the API key is for.

    Raises `NotFound`, `UserForbidden` or `UserNotNamed`.
    """
    grant: Grant = request.grant
    named = request.resolver_match.kwargs.get("user_id") if request.resolver_match else None
    if named is not None:
        try:
            user_id = user_keys.parse(named)
        except ValueError as fault:
            raise NotFound(f"the base URL names no user: {fault}") from None
        auth.permit(grant, user_id)
        return user_id
    if grant.users is not None and len(grant.users) == 1:
        return next(iter(grant.users))
    whose = "no API key was sent" if grant.key_id is None else "this API key is not a single user's"
    raise UserNotNamed(f"{whose}, so the base URL has to name the user: …/u/{{user_id}}/v1")


def make_request(  # noqa: PLR0913, PLR0917  # what the client sent, in its parts
    request: Request,
    asked: Asked,
    dialect: Dialect,
    body: dict[str, Any],
    headers: Mapping[str, str] | None = None,
    path: str = "",
) -> GenerationRequest:
    """`headers` go to a provider that speaks the same dialect. Raises what `user_of` does, and
    `IdempotencyKeyInvalid`."""
    head = request.head
    return GenerationRequest(
        user_id=user_of(request),
        request_id=head.request_id,
        arrived_at=head.arrived_at,
        started=head.started,
        model=asked.model,
        max_tokens=asked.max_tokens,
        idempotency_key=idempotency.read(request.META.get("HTTP_IDEMPOTENCY_KEY")),
        grant=request.grant,
        trace=trace_context.read(request.META.get("HTTP_TRACEPARENT")),
        metadata=_labels(asked.metadata),
        messages=asked.messages,
        system=asked.system,
        tools=asked.tools,
        options=asked.options,
        is_streamed=asked.is_streamed or asked.is_background,
        is_background=asked.is_background,
        verbatim=Verbatim(
            dialect=dialect,
            body=body,
            headers=headers or {},
            unsaid=asked.unsaid,
            bytes=len(request.body),
            path=path,
        ),
    )


def forwarded(request: Request, *names: str) -> dict[str, str]:
    """Returns those of the client's headers that its provider should see. Raises `BadRequest` for
    one that is too long or holds odd characters."""
    found = {}
    for name in names:
        value = request.headers.get(name)
        if value is None:
            continue
        if len(value) > _FORWARDED_CHARS or not _FORWARDED.fullmatch(value):
            raise BadRequest(f"the header {name} can't be passed on")
        found[name] = value
    return found


def _labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What of a client's metadata the row takes; the provider gets all of it."""
    labels = {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str)
        and 0 < len(name) <= MAX_LABEL_CHARS
        and len(value) <= MAX_VALUE_CHARS
        and is_storable(name)
        and is_storable(value)
    }
    return dict(list(labels.items())[:MAX_METADATA])
