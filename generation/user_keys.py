"""How users are named: by the primary key of AUTH_USER_MODEL, as text and as JSON has it.

An integer is an `int`; a UUID is its text with lower-case digits and hyphens, so that a row which
waits in a journal as JSON and one in memory name a user alike.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from generation.storable import is_storable

if TYPE_CHECKING:
    from generation.records import UserKey

    Kind = Literal["integer", "uuid", "text"]

BIGINT_MAX = 2**63 - 1
TEXT_MAX = 255  # characters; a column may take fewer
WORDS = {
    "integer": "a whole number, without sign or leading zeros",
    "uuid": "a UUID, with hyphens",
    "text": f"1 to {TEXT_MAX} characters, without slash or NUL",
}
# In an address; Django's own path converters take less of it, or more.
PATTERNS = {
    "integer": "[1-9][0-9]{0,18}",
    "uuid": "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "text": rf"[^/\x00]{{1,{TEXT_MAX}}}",
}
_FIELDS: tuple[tuple[Kind, tuple[type[models.Field[Any, Any]], ...]], ...] = (
    ("integer", (models.IntegerField, models.AutoField)),
    ("uuid", (models.UUIDField,)),
    ("text", (models.CharField, models.TextField)),
)


def key_field(user_model: Any) -> Any:
    """Returns the field that has the key; of a model with a parent, the parent's."""
    field = user_model._meta.pk
    while field.is_relation:
        field = field.target_field
    return field


def kind_of(user_model: Any) -> Kind | None:
    """Returns None for a key of a type that we can't take."""
    field = key_field(user_model)
    return next((kind for kind, types in _FIELDS if isinstance(field, types)), None)


@cache
def kind() -> Kind:
    """Returns what the keys of AUTH_USER_MODEL are. Raises `ImproperlyConfigured`."""
    found = kind_of(get_user_model())
    if found is None:
        raise ImproperlyConfigured("AUTH_USER_MODEL has a primary key that Staccato can't take")
    return found


def pattern() -> str:
    """Returns the regular expression for a key in an address."""
    return PATTERNS[kind()]


def json_schema() -> dict[str, Any]:
    """Returns what OpenAPI says of a key in an address."""
    if kind() == "integer":
        return {"type": "integer", "minimum": 1, "maximum": BIGINT_MAX}
    return {"type": "string", "pattern": f"^{pattern()}$"}


def parse(text: str) -> UserKey:
    """Returns the key that a text names, in one spelling only. Raises `ValueError`."""
    of_kind = kind()
    if not (re.fullmatch(PATTERNS[of_kind], text) and is_storable(text)):
        raise ValueError(f"a user's key is {WORDS[of_kind]}")
    if of_kind == "uuid":
        return text.lower()
    if of_kind == "text":
        return text
    if (number := int(text)) > BIGINT_MAX:
        raise ValueError(f"a user's key is at most {BIGINT_MAX}")
    return number


def native(key: UserKey) -> Any:
    """Returns the key as AUTH_USER_MODEL has it, e.g. a `UUID`."""
    return key_field(get_user_model()).to_python(key)


def key_of(user: Any) -> UserKey | None:
    """Returns the key of a user, or a key that was given in its place.

    None for nobody, and for the user of a request that is not logged in. Raises `ValueError`.
    """
    given = getattr(user, "pk", user)
    of_kind = kind()
    if given is None:
        return None
    if of_kind == "integer" and isinstance(given, int):
        if abs(given) <= BIGINT_MAX:
            return given
    elif of_kind == "uuid" and isinstance(given, UUID | str):
        try:
            return str(UUID(str(given)))
        except ValueError:
            pass
    elif of_kind == "text" and isinstance(given, str) and is_storable(given):
        return given
    raise ValueError(f"a user's key is {WORDS[of_kind]}")
