"""A user model whose key is of the kind that USER_KEY names."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import uuid4

from django.contrib.auth.models import AbstractUser
from django.db import models

KEYS: dict[str, Callable[[], models.Field]] = {
    "integer": lambda: models.AutoField(primary_key=True),
    "uuid": lambda: models.UUIDField(primary_key=True, default=uuid4),
    "text": lambda: models.CharField(primary_key=True, max_length=60),
}


class Person(AbstractUser):
    id = KEYS[os.environ["USER_KEY"]]()
