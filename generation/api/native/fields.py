"""The types of single members in the native API's requests."""

from __future__ import annotations

from collections.abc import Sized
from typing import Annotated, Any

import ninja
import orjson
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from generation import user_keys
from generation.records import UserKey
from generation.storable import is_storable

MAX_DEPTH = 100  # orjson reads 1,024 levels and writes 254, and requests and rows add a few


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("holds a NUL character, which can't be stored")
    return text


_STORABLE = AfterValidator(_storable)
_NO_NUL = Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
Text = Annotated[str, _STORABLE, _NO_NUL]
Name = Annotated[Text, Field(max_length=100)]
Label = Annotated[str, Field(min_length=1, max_length=64), _STORABLE, _NO_NUL]
LabelValue = Annotated[str, Field(max_length=512), _STORABLE, _NO_NUL]


def at_most(limit: int, what: str) -> BeforeValidator:
    """Refuses too many members before each is looked at."""

    def check(given: object) -> object:
        if isinstance(given, Sized) and not isinstance(given, str) and len(given) > limit:
            raise PydanticCustomError("too_many", f"there are more than {limit} {what}")
        return given

    return BeforeValidator(check)


def _storable_json(given: dict[str, Any]) -> dict[str, Any]:
    if _is_deeper(given, MAX_DEPTH):
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    if b"\\u0000" in orjson.dumps(given):
        raise ValueError("holds a NUL character, which can't be stored")
    return given


def _is_deeper(document: dict[str, Any], limit: int) -> bool:
    level: list[Any] = [document]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


JSONObject = Annotated[dict[str, Any], AfterValidator(_storable_json)]


def _user_key(given: str) -> UserKey:
    try:
        return user_keys.parse(given)
    except ValueError as fault:
        raise PydanticCustomError("user_id", "{fault}", {"fault": str(fault)}) from None


UserId = Annotated[
    UserKey,
    PlainValidator(_user_key),
    WithJsonSchema(user_keys.json_schema()),
    ninja.Path(description="The user's key."),
]
