"""Who calls."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.timezone import now

from generation.models.log_content import LogContent

NAMED_USERS = 3  # of an API key for several users; the others are counted


class ApiKey(models.Model):
    """A caller's key. Only its HMAC is stored."""

    class Scope(models.TextChoices):
        USER = "user", "one user"
        USERS = "users", "the users named below"
        ALL = "all", "all users"

    class State(models.TextChoices):
        ACTIVE = "active", "active"
        EXPIRED = "expired", "expired"
        REVOKED = "revoked", "revoked"

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, help_text="Who or what uses it.")
    prefix = models.CharField(
        max_length=12, unique=True, editable=False, help_text="The public part of the key."
    )
    digest = models.CharField(max_length=64, editable=False)
    scope = models.CharField(
        max_length=8,
        choices=Scope.choices,
        default=Scope.USER,
        help_text="The users it may generate for. A key for more than one user is a service key,"
        " which may also read the metrics and the pool page.",
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text="The user, if the key is for one user.",
    )
    users = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="+")
    allowed_models = models.TextField(
        blank=True,
        default="",
        help_text="provider:model, or provider for all of its models, separated by commas."
        " Empty: all that the service offers.",
    )
    log_content = models.CharField(
        "kept in the log",
        max_length=8,
        choices=LogContent.choices,
        blank=True,
        default="",
        db_default="",
        help_text="Of the prompts and results of requests with this key. The strictest choice"
        " counts: the service's (STACCATO_LOG_CONTENT), the profile's or the API key's.",
    )
    weight = models.PositiveSmallIntegerField(
        default=1,
        db_default=1,
        validators=[MinValueValidator(1)],
        help_text="Of its share of a process that is nearly full, beside the other keys in use.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField("expires", null=True, blank=True, help_text="Empty: never.")
    revoked_at = models.DateTimeField("revoked", null=True, editable=False)
    last_used_at = models.DateTimeField(
        "last used", null=True, editable=False, help_text="Accurate to about a minute."
    )

    class Meta:
        verbose_name = "API key"
        constraints: ClassVar = [
            # A set of users that becomes empty must never mean "all users".
            models.CheckConstraint(
                condition=Q(scope="user", user__isnull=False)
                | (~Q(scope="user") & Q(user__isnull=True)),
                name="generation_apikey_user",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} (stc_{self.prefix}…)"

    @property
    def state(self) -> ApiKey.State:
        if self.revoked_at:
            return self.State.REVOKED
        if self.expires_at and self.expires_at <= now():
            return self.State.EXPIRED
        return self.State.ACTIVE

    @property
    def audience(self) -> str:
        """Returns the users that the key may generate for, in words. Reads `user` or `users`."""
        if self.scope == self.Scope.ALL:
            return "all users"
        if self.user:
            return self.user.get_username()
        names = sorted(user.get_username() for user in self.users.all())
        more = f" and {len(names) - NAMED_USERS} more" if len(names) > NAMED_USERS else ""
        return f"{', '.join(names[:NAMED_USERS])}{more}" or "no user"
