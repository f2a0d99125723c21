"""Who read which texts, and whose are never stored again."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from generation.uuid7 import uuid7


class GenerationAccess(models.Model):
    """Who read, searched, exported, sent again or erased which texts. Committed before that.

    A trigger refuses UPDATE, DELETE, and TRUNCATE unless it is empty; a week that is past its
    retention is dropped.
    """

    class Action(models.TextChoices):
        READ = "read"
        SEARCH = "search"
        EXPORT = "export"
        REPLAY = "replay"
        ERASE = "erase"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(db_default=Now(), editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        related_name="+",
        help_text="Empty: a command.",
    )
    address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=8, choices=Action.choices)
    log_id = models.UUIDField(null=True, help_text="Of the one generation, if it was one.")
    selection = models.TextField(blank=True, help_text="The list's filter, or what a command took.")
    rows = models.IntegerField(help_text="How many generations.")

    class Meta:
        verbose_name = "access"
        verbose_name_plural = "accesses"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)


class ForgottenUser(models.Model):
    """A user whose texts are never stored again: rows still to come are stored without them."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        primary_key=True,
        related_name="+",
    )
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"user {self.user_id}"
