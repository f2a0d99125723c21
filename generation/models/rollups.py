"""Sums of the log, from which the operators' pages are made.

They are recomputed from the log, never added to, so they equal it; see `rollups/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

PRICED = "Those of which the cost is known."
UNPRICED = "Those that have an answer or tokens, but no known cost."
LENGTH = "The bucket's length: 5, 60, 360, 1440 or 10080."
START = "Its start, in UTC; weeks begin on Mondays. A request belongs to it by its arrival."


class IntegerArray(models.Field):  # type: ignore[type-arg]  # not generic at run time
    """An array of integers. Django's own would ask a project for `django.contrib.postgres`."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:  # noqa: ARG002  # Django's signature
        return "integer[]"


class TextArray(models.Field):  # type: ignore[type-arg]  # not generic at run time
    """An array of texts."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:  # noqa: ARG002  # Django's signature
        return "text[]"


class BrinIndex(models.Index):
    """The range of values in each run of pages: a few kilobytes, for a column that grows as the
    table does. Django's own would ask a project for `django.contrib.postgres`.
    """

    suffix = "brin"

    def create_sql(
        self, model: Any, schema_editor: Any, using: str = " USING brin", **kwargs: Any
    ) -> Any:
        statement: Any = super().create_sql(model, schema_editor, using=using, **kwargs)
        # New pages are all read until they are summarized, which else waits for a vacuum.
        statement.parts["extra"] = f" WITH (autosummarize = on){statement.parts['extra']}"
        return statement


class Rollup(models.Model):
    """What the service did in a bucket of time, by all that divides one request from another.

    A row of five minutes sums the log; one of an hour sums those, and so on to weeks.
    """

    pk = models.CompositePrimaryKey(
        "minutes", "bucket", "provider", "model", "status", "error_type", "http_status"
    )
    minutes = models.SmallIntegerField(help_text=LENGTH)
    bucket = models.DateTimeField(help_text=START)
    provider = models.CharField(max_length=32)
    model = models.CharField(max_length=200)
    status = models.CharField(max_length=16)
    error_type = models.CharField(max_length=64)
    http_status = models.IntegerField(help_text="Of the last attempt; 0: none came.")
    first_at = models.DateTimeField(help_text="When the first request arrived.")
    last_at = models.DateTimeField(help_text="When the last request arrived.")
    requests = models.BigIntegerField()
    priced = models.BigIntegerField(help_text=PRICED)
    unpriced = models.BigIntegerField(help_text=UNPRICED)
    retried = models.BigIntegerField(help_text="Those with more than one attempt.")
    fell_back = models.BigIntegerField(
        help_text="Those whose last attempt asked another model than the first."
    )
    input_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    output_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    cache_read_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    cache_write_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    cost_usd = models.DecimalField(max_digits=38, decimal_places=9)
    failed_users = TextArray(
        help_text="The primary keys of the users whose requests did not succeed, as text."
    )
    # They show a search of the log that a bucket has no row of the kind that it seeks.
    highest_cost_usd = models.DecimalField(
        max_digits=18, decimal_places=9, help_text="Of one request; 0: none is known."
    )
    highest_total_tokens = models.BigIntegerField(help_text="Of one request; 0: none is known.")
    stop_reasons = TextArray(help_text="Those that any of the requests has.")
    highest_latency_step = models.IntegerField(help_text="Of one request, as in `Latency`.")

    class Meta:
        default_permissions = ()
        # They lead a search of the log to the buckets that have a model, or an error.
        indexes: ClassVar = [
            models.Index(fields=["model", "minutes", "bucket"], name="generation_rollup_model"),
            models.Index(
                fields=["error_type", "minutes", "bucket"],
                condition=~models.Q(error_type=""),
                name="generation_rollup_error",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.minutes} minutes from {self.bucket:%Y-%m-%d %H:%M}"


class Latency(models.Model):
    """A histogram of how long the requests of a bucket took that succeeded: of each model, and of
    all together, since plots read those of many buckets. It has the same buckets as `Rollup`.
    """

    pk = models.CompositePrimaryKey("minutes", "bucket", "provider", "model")
    minutes = models.SmallIntegerField(help_text=LENGTH)
    bucket = models.DateTimeField(help_text=START)
    provider = models.CharField(max_length=32, help_text="Empty, as the model is: all together.")
    model = models.CharField(max_length=200)
    steps = IntegerArray(
        help_text="Those of `rollups/histogram.py` that any request took, in ascending order."
    )
    counts = IntegerArray(help_text="How many requests took each of the steps.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"latency of {self.minutes} minutes from {self.bucket:%Y-%m-%d %H:%M}"


class Spend(models.Model):
    """Who spent what on which model in an hour. A request belongs to it by its arrival."""

    pk = models.CompositePrimaryKey("hour", "user_key", "api_key_id", "provider", "model")
    hour = models.DateTimeField(help_text="Its start.")
    user_key = models.TextField(help_text="The user's primary key as text; empty: nobody.")
    api_key_id = models.BigIntegerField(help_text="0: the request needed none.")
    provider = models.CharField(max_length=32)
    model = models.CharField(max_length=200)
    requests = models.BigIntegerField()
    failed = models.BigIntegerField(help_text="Those that did not succeed.")
    priced = models.BigIntegerField(help_text=PRICED)
    unpriced = models.BigIntegerField(help_text=UNPRICED)
    input_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    output_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    cost_usd = models.DecimalField(max_digits=38, decimal_places=9)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"user {self.user_key} from {self.hour:%Y-%m-%d %H:%M}"


class Spender(models.Model):
    """What one user, or one API key, spent in a bucket of time, in all.

    A row of an hour sums `Spend`, in which a user may have many rows; one of six hours sums hours,
    and so on to weeks. So a ranking of three months reads few rows.
    """

    class Kind(models.TextChoices):
        USER = "user"
        KEY = "key"

    pk = models.CompositePrimaryKey("minutes", "bucket", "kind", "key")
    minutes = models.SmallIntegerField(help_text="The bucket's length: 60, 360, 1440 or 10080.")
    bucket = models.DateTimeField(help_text="Its start, in UTC; weeks begin on Mondays.")
    kind = models.CharField(max_length=4, choices=Kind.choices)
    key = models.TextField(help_text="As in `Spend`: of the user, or of the API key.")
    requests = models.BigIntegerField()
    failed = models.BigIntegerField(help_text="Those that did not succeed.")
    priced = models.BigIntegerField(help_text=PRICED)
    unpriced = models.BigIntegerField(help_text=UNPRICED)
    input_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    output_tokens = models.DecimalField(max_digits=38, decimal_places=0)
    cost_usd = models.DecimalField(max_digits=38, decimal_places=9)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.key}, {self.minutes} minutes from {self.bucket:%Y-%m-%d %H:%M}"
