"""Users and API keys by what an operator types."""

from __future__ import annotations

import contextlib
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from generation import user_keys
from generation.models import ApiKey

BIGINT_DIGITS = 18


def find_users(term: str) -> list[Any]:
    """Returns the keys of the users that a search term means: a key, or else a whole name."""
    keys: list[Any] = []
    with contextlib.suppress(ValueError):
        is_number = user_keys.kind() == "integer" and term.isdigit()
        keys.append(user_keys.parse(term.lstrip("0") if is_number else term))
    if keys and user_keys.kind() != "text":  # any text might be a key
        return keys
    model = get_user_model()
    named = model._base_manager.filter(**{model.USERNAME_FIELD: term})
    return [*keys, *named.values_list("pk", flat=True)]


def find_api_keys(term: str) -> list[int]:
    """Returns the ids of the API keys with that name or prefix, or else that id, also if its key is
    gone."""
    named = Q(name=term) | Q(prefix=term)
    ids = list(ApiKey.objects.filter(named).values_list("pk", flat=True))
    is_id = term.isascii() and term.isdigit() and len(term) <= BIGINT_DIGITS
    return ids if ids or not is_id else [int(term)]
