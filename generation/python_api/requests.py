"""From a call's arguments to a `GenerationRequest`: the same bounds as for a request of HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict
from uuid import uuid4

from generation import user_keys
from generation.conversation import NO_OPTIONS, Message, Text
from generation.errors import InvalidRequest
from generation.pipeline import idempotency
from generation.python_api.effects import check_effects
from generation.records import GenerationRequest
from generation.storable import is_storable
from generation.telemetry.logs import request_id

if TYPE_CHECKING:
    from uuid import UUID

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

    from generation.conversation import Options, Tool
    from generation.effects import Effect
    from generation.records import UserKey

User: TypeAlias = "AbstractBaseUser | AnonymousUser | UUID | int | str | None"
MessageLike: TypeAlias = Message | Mapping[str, str]  # {"role": "user", "content": "a text"}

MAX_METADATA = 16
MAX_LABEL_CHARS = 64
MAX_VALUE_CHARS = 512
_ROLES = ("user", "assistant")


class Asked(TypedDict, total=False):
    """What `generate()`, `generate_sync()` and `stream()` take beside the user.

    Say what to send in one of three ways: `prompt` as it is; `messages`, each a
    `{"role": …, "content": …}` or a `generation.conversation.Message`; or `input` and `variables`
    for the template of the user's profile.
    """

    prompt: str | None
    messages: Sequence[MessageLike]
    input: str
    variables: Mapping[str, str]
    system: str | None  # None: the profile's
    tools: Sequence[Tool]  # with `messages`, as are the options
    options: Options | None
    provider: str  # '': the profile's, or the service's default
    model: str
    max_tokens: int | None
    idempotency_key: str  # a repetition gets the first answer and costs nothing
    metadata: Mapping[str, str]  # for the log row
    effects: Sequence[Effect]  # `Insert` and `Update`: rows of your own, in the log row's commit
    timeout: float | None  # seconds for the LLM, within LLM_TIMEOUT; of a stream, to its first text


def make_request(user: User, asked: Asked, *, is_streamed: bool = False) -> GenerationRequest:
    """Raises `InvalidRequest` or `IdempotencyKeyInvalid`, and `TypeError` for an unknown name."""
    if unknown := sorted(asked.keys() - Asked.__annotations__):
        raise TypeError(f"there is no argument {unknown[0]}")
    user_id = key_of(user)
    prompt, given = asked.get("prompt"), asked.get("input", "")
    variables = dict(asked.get("variables") or {})
    messages, system = _conversation(asked.get("messages", ()), asked.get("system"))
    _require_one_way(user_id, prompt, messages, is_template=bool(given or variables))
    if (asked.get("tools") or asked.get("options")) and not messages:
        raise InvalidRequest("tools and options go with `messages`")
    provider, model = asked.get("provider", ""), asked.get("model", "")
    texts = (prompt or "", given, system or "", provider, model, *variables, *variables.values())
    if not all(map(is_storable, texts)):
        raise InvalidRequest("a text holds a NUL character, which can't be stored")
    max_tokens, timeout = asked.get("max_tokens"), asked.get("timeout")
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequest("max_tokens is less than 1")
    if timeout is not None and timeout <= 0:
        raise InvalidRequest("the timeout is not above 0 s")
    key = idempotency.read(asked.get("idempotency_key") or None)
    if key and user_id is None:
        raise InvalidRequest("an idempotency key belongs to a user, and this call names none")
    return _request(
        user_id,
        prompt=prompt,
        messages=messages,
        input=given,
        variables=variables,
        system=system,
        tools=tuple(asked.get("tools", ())),
        options=asked.get("options") or NO_OPTIONS,
        provider=provider,
        model=model,
        max_tokens=max_tokens,
        idempotency_key=key,
        metadata=labels(asked.get("metadata")),
        effects=check_effects(asked.get("effects", ())),
        timeout=timeout,
        is_streamed=is_streamed,
    )


def make_own_request(
    user: User, metadata: Mapping[str, str], effects: Sequence[Effect]
) -> GenerationRequest:
    """Of a generation whose phase 2 is the caller's. Raises `InvalidRequest`."""
    return _request(key_of(user), metadata=labels(metadata), effects=check_effects(effects))


def key_of(user: User) -> UserKey | None:
    """Returns None for nobody. Raises `InvalidRequest`."""
    try:
        return user_keys.key_of(user)
    except ValueError as fault:
        raise InvalidRequest(str(fault)) from None


def labels(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Raises `InvalidRequest` for what a row has no place for."""
    given = dict(metadata or {})
    if len(given) > MAX_METADATA:
        raise InvalidRequest(f"metadata has more than {MAX_METADATA} names")
    for name, value in given.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise InvalidRequest("metadata maps texts to texts")
        if not (0 < len(name) <= MAX_LABEL_CHARS and len(value) <= MAX_VALUE_CHARS):
            raise InvalidRequest(
                f"metadata has names of 1 to {MAX_LABEL_CHARS} and values of up to"
                f" {MAX_VALUE_CHARS} characters"
            )
        if not (is_storable(name) and is_storable(value)):
            raise InvalidRequest("metadata holds a NUL character, which can't be stored")
    return given


def _request(user_id: UserKey | None, **asked: Any) -> GenerationRequest:
    """Of now, and under the id of the request that this code serves."""
    return GenerationRequest(
        user_id=user_id,
        request_id=request_id.get() or uuid4().hex,
        arrived_at=datetime.now(UTC),
        started=time.monotonic(),
        **asked,
    )


def _require_one_way(
    user_id: UserKey | None, prompt: str | None, messages: object, *, is_template: bool
) -> None:
    ways = (prompt is not None, bool(messages), is_template)
    if sum(ways) > 1:
        raise InvalidRequest("say either `prompt`, or `messages`, or `input` and `variables`")
    if prompt is not None and not prompt.strip():
        raise InvalidRequest("the prompt is empty")
    if user_id is None and not (prompt or messages):
        raise InvalidRequest("say `prompt` or `messages`, or name a user who has a template")


def _conversation(
    messages: Sequence[MessageLike], system: str | None
) -> tuple[tuple[Message, ...], str | None]:
    """Returns the messages without the system's, and its prompt."""
    if not messages:
        return (), system
    spoken: list[Message] = []
    for each in messages:
        if isinstance(each, Message):
            spoken.append(each)
            continue
        role, content = each.get("role"), each.get("content")
        if not isinstance(content, str):
            raise InvalidRequest(
                "the content of a message is a text; for images and tools, give a"
                " generation.conversation.Message"
            )
        if role == "system" and not spoken:
            system = f"{system}\n\n{content}" if system else content
        elif role in _ROLES:
            spoken.append(Message(role, (Text(content),)))  # type: ignore[arg-type]  # one of _ROLES
        else:
            raise InvalidRequest("a message's role is user or assistant; system comes first")
    if not spoken or spoken[-1].role != "user":
        raise InvalidRequest("the last of `messages` must be the user's")
    _require_storable(spoken)
    return tuple(spoken), system


def _require_storable(messages: Sequence[Message]) -> None:
    texts = (part.text for each in messages for part in each.parts if isinstance(part, Text))
    if not all(map(is_storable, texts)):
        raise InvalidRequest("a message holds a NUL character, which can't be stored")
