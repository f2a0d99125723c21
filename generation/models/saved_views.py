"""Filters of the log's list that people want back."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class SavedView(models.Model):
    """A filter of the list of generations, under a name. It gives nobody a right to see a row."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=2000, help_text="What follows the ? in the list's address.")
    is_shared = models.BooleanField(
        "shared", default=False, db_default=False, help_text="All who see the list see it."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        default_permissions = ()  # who sees the list may save views of it
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["owner", "name"], name="generation_saved_view_name")
        ]

    def __str__(self) -> str:
        return self.name
