"""What callers may spend: the limits, what of each is taken, and by which process."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

NANO = 1_000_000_000  # US dollars are counted in billionths


class Limit(models.Model):
    """An amount that a key, a user, each of them, or all together may use in a window.

    Rates (second, minute, hour) refill all the time; budgets (day, week, month, ever) start again
    with each window. Processes read the table every few seconds, and before a new key's first call.
    """

    class Scope(models.TextChoices):
        KEY = "key", "an API key"
        USER = "user", "a user"
        ALL = "all", "all together"

    class Unit(models.TextChoices):
        REQUESTS = "requests", "requests"
        TOKENS = "tokens", "tokens"
        USD = "usd", "US dollars"
        IN_FLIGHT = "in_flight", "requests at once"

    class Window(models.TextChoices):
        SECOND = "second", "per second"
        MINUTE = "minute", "per minute"
        HOUR = "hour", "per hour"
        DAY = "day", "per day"
        WEEK = "week", "per week"
        MONTH = "month", "per month"
        EVER = "ever", "ever"

    id = models.BigAutoField(primary_key=True)
    scope = models.CharField("for", max_length=8, choices=Scope.choices)
    api_key = models.ForeignKey(
        "ApiKey",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        verbose_name="API key",
        related_name="limits",
        help_text="Empty: each key has this much for itself.",
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="generation_limits",
        help_text="Empty: each user has this much for themselves.",
    )
    provider = models.CharField(
        max_length=200, blank=True, default="", help_text="Empty: all providers."
    )
    model = models.CharField(
        max_length=200, blank=True, default="", help_text="Empty: all of the provider's models."
    )
    unit = models.CharField(max_length=16, choices=Unit.choices)
    amount = models.BigIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="In billionths if the unit is US dollars. 0 blocks; empty is no limit.",
    )
    window = models.CharField(
        max_length=8,
        choices=Window.choices,
        blank=True,
        default="",
        help_text="Empty for requests at once.",
    )
    zone = models.CharField(
        "time zone",
        max_length=64,
        blank=True,
        default="",
        help_text="In which days, weeks and months begin. Empty: UTC.",
    )
    is_enforced = models.BooleanField(
        "enforced",
        default=True,
        help_text="If not, it refuses nothing: metrics and alerts show it.",
    )
    # An override: it ends with its window because the next window has another start.
    extra = models.BigIntegerField(default=0, db_default=0, editable=False)
    extra_start = models.DateTimeField(null=True, editable=False)
    # `limit reset` counts it up: a new row of LimitWindow then begins at nothing.
    generation = models.IntegerField(default=0, db_default=0, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(amount__isnull=True) | Q(amount__gte=0), name="generation_limit_amount"
            ),
            models.CheckConstraint(
                condition=Q(unit="in_flight", window="") | (~Q(unit="in_flight") & ~Q(window="")),
                name="generation_limit_window",
            ),
            models.CheckConstraint(
                condition=(Q(scope="key") | Q(api_key__isnull=True))
                & (Q(scope="user") | Q(user__isnull=True)),
                name="generation_limit_scope",
            ),
            models.CheckConstraint(
                condition=~Q(unit="usd", window__in=("second", "minute", "hour")),
                name="generation_limit_usd",
            ),
        ]

    def __str__(self) -> str:
        return f"limit {self.pk}"

    def clean(self) -> None:
        if (self.unit == self.Unit.IN_FLIGHT) == bool(self.window):
            raise ValidationError({"window": "Requests at once have no window; all else has one."})
        if self.unit == self.Unit.USD and self.window in {"second", "minute", "hour"}:
            raise ValidationError({"window": "US dollars are counted per day or longer."})
        if self.model and not self.provider:
            raise ValidationError({"provider": "Name the model's provider."})


class LimitWindow(models.Model):
    """What is taken of a limit in one window. Rates have one row, whose `committed` drains."""

    id = models.BigAutoField(primary_key=True)
    # No constraint: a process that grants a deleted limit's rest must not fail its neighbours.
    limit = models.ForeignKey(
        Limit, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    subject = models.TextField(help_text="The user's or key's id where each has its own; else ''.")
    start = models.DateTimeField()
    generation = models.IntegerField(default=0)
    # The sum of what its leases were granted, kept in the one row that decides.
    committed = models.BigIntegerField(default=0)
    change = models.BigIntegerField(default=0, help_text="By the last statement.")
    as_of = models.DateTimeField(help_text="Up to when a rate has refilled.")
    alerted = models.SmallIntegerField(default=0, db_default=0, help_text="Per cent.")
    folded = models.BigIntegerField(
        default=0, db_default=0, help_text="Used under leases that are gone."
    )

    class Meta:
        default_permissions = ()
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["limit", "subject", "start", "generation"],
                name="generation_limitwindow_key",
            )
        ]

    def __str__(self) -> str:
        return f"limit {self.limit_id} from {self.start}"


class LimitLease(models.Model):
    """What one run of a process may use of a window without asking, and what its rows settled."""

    id = models.BigAutoField(primary_key=True)
    run = models.UUIDField()
    window = models.ForeignKey(
        LimitWindow, on_delete=models.DO_NOTHING, db_constraint=False, related_name="leases"
    )
    granted = models.BigIntegerField(default=0)
    settled = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        default_permissions = ()
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run", "window"], name="generation_limitlease_key")
        ]

    def __str__(self) -> str:
        return f"lease {self.pk}"


class LimitHolder(models.Model):
    """A run of a process that holds leases."""

    run = models.UUIDField(primary_key=True)
    alive_until = models.DateTimeField(db_index=True)
    name = models.CharField(max_length=100, db_default="")
    since = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
