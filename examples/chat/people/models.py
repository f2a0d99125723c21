"""Users whose keys are UUIDs."""

from uuid import UUID, uuid4

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    id: "models.UUIDField[UUID, UUID]" = models.UUIDField(
        primary_key=True, default=uuid4, editable=False
    )
    persona: "models.TextField[str, str]" = models.TextField(
        blank=True, help_text="How answers shall sound, e.g. “Be brief, and kind.”"
    )
