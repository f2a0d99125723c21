"""Users, as the commands are given them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from generation import user_keys

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


def find_user(name: str) -> AbstractBaseUser:
    """Returns the user of that name, else of that id. Raises `CommandError`."""
    users = get_user_model()._base_manager
    found = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
    if found is None:
        with contextlib.suppress(ValueError):
            found = users.filter(pk=user_keys.parse(name)).first()
    if found is None:
        raise CommandError(f"There is no user {name}.")
    return found
