"""Reading what a provider sent, without trust: JSON, its shape, and excerpts for the log."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from generation.errors import LLMBadReply

EXCERPT_CHARS = 4000
_MIN_SECRET_CHARS = 8  # a local server's dummy key, `none` say, is a common word

# Keys as Anthropic and OpenAI write them, also where an error message masks their middle.
_KEY_SHAPED = re.compile(r"sk-[\w*.-]{4,}", re.ASCII)


def _check_word(value: str) -> str:
    if not value.isprintable():
        raise ValueError("Input should be printable")
    return value


# No model reads or writes more tokens than this in one call.
Count = Annotated[int, Field(strict=True, ge=0, le=100_000_000)]
Word = Annotated[str, Field(strict=True, max_length=200), AfterValidator(_check_word)]


class Shape(BaseModel):
    """The part of a reply that is read. What else it holds is ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


ShapeT = TypeVar("ShapeT", bound=Shape)


def parse_json(body: bytes) -> Any:
    """Raises `LLMBadReply`; absurd nesting and non-finite numbers included."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates, which a model that was cut off may well send.
        if b"\\u" not in body:
            raise LLMBadReply("the provider's reply is not JSON") from None
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise LLMBadReply("the provider's reply is not JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def fit(shape: type[ShapeT], payload: object) -> ShapeT:
    """The payload as that shape. Raises `LLMBadReply` that names the first misfit."""
    try:
        return shape.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "reply"
        raise LLMBadReply(
            f"the provider's reply is not as promised: {place}: {first['msg']}"
        ) from None


def excerpt(body: bytes | bytearray, secret: str, *, limit: int = EXCERPT_CHARS) -> str:
    """The beginning of a body as text that can be stored and shown: no NUL, no key."""
    # Twice the limit, so that a key across its edge is seen whole.
    text = bytes(body[: limit * 2 + 1000]).decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(secret) >= _MIN_SECRET_CHARS:
        text = text.replace(secret, "[key]")
    return _KEY_SHAPED.sub("[key]", text)[:limit]
