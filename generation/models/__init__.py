"""The only declaration of the schema; `store/tables.py` derives its tables from it."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from generation.models.access import ForgottenUser, GenerationAccess
from generation.models.api_keys import NAMED_USERS, ApiKey
from generation.models.deployment import Announcement, Deployment, Maintenance
from generation.models.limits import Limit, LimitHolder, LimitLease, LimitWindow
from generation.models.log_content import LogContent
from generation.models.rollups import BrinIndex, Latency, Rollup, Spend, Spender
from generation.models.saved_views import SavedView

__all__ = [
    "NAMED_USERS",
    "Announcement",
    "ApiKey",
    "Deployment",
    "ForgottenUser",
    "GenerationAccess",
    "GenerationBody",
    "GenerationLog",
    "IdempotencyKey",
    "Latency",
    "Limit",
    "LimitHolder",
    "LimitLease",
    "LimitWindow",
    "LogContent",
    "Maintenance",
    "Profile",
    "Rollup",
    "SavedView",
    "Spend",
    "Spender",
    "UsageLog",
]


class Profile(models.Model):
    """A user's prompt: what the LLM gets when a request names this user."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="generation_profile",
    )
    prompt_template = models.TextField(
        help_text="$name is replaced by the request's variable of that name, $input by its input,"
        " and $$ by a dollar sign. Without $input, the input is appended after a blank line.",
    )
    system = models.TextField(
        "system prompt", blank=True, default="", help_text="Sent as the system prompt."
    )
    provider = models.CharField(
        max_length=32, blank=True, default="", help_text="Empty: the service's default."
    )
    model = models.CharField(
        max_length=200, blank=True, default="", help_text="Empty: the provider's default."
    )
    max_tokens = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Limit on the answer's length. Empty: the service's default.",
    )
    log_content = models.CharField(
        "kept in the log",
        max_length=8,
        choices=LogContent.choices,
        blank=True,
        default="",
        db_default="",
        help_text="Of this user's prompts and results. The strictest choice counts: the service's"
        " (STACCATO_LOG_CONTENT), the profile's or the API key's.",
    )

    def __str__(self) -> str:
        return f"Profile of user {self.user_id}"


class GenerationLog(models.Model):
    """The outcome of one request that passed phase 1, without its texts: see `GenerationBody`.

    The table has a partition for each week of the ids; `partitions/` makes and drops them.
    """

    class Status(models.TextChoices):
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        TIMED_OUT = "timed_out"
        CANCELLED = "cancelled"

    # A UUIDv7 that the process makes before phase 3, so rows are ordered by time.
    id = models.UUIDField(primary_key=True, editable=False)
    # No constraint: the user may be deleted while the model thinks, and the row stays.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,  # the index on (user, -id) serves
        null=True,
        related_name="+",
        help_text="Empty: the project's own code asked, for nobody in particular.",
    )
    # No constraint: a key may be deleted, and what it spent stays.
    api_key = models.ForeignKey(
        "ApiKey",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,  # the index on (API key, -id) serves
        null=True,
        verbose_name="API key",
        related_name="+",
        help_text="Empty: the request needed none.",
    )
    provider = models.CharField(max_length=32)
    model = models.CharField(max_length=200)
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    total_tokens = models.BigIntegerField(null=True)
    cache_read_tokens = models.BigIntegerField(
        null=True, help_text="The part of the input that the provider read from its cache."
    )
    cache_write_tokens = models.BigIntegerField(
        null=True, help_text="The part of the input that the provider wrote to its cache."
    )
    max_tokens = models.IntegerField(null=True, help_text="The limit on the answer's length.")
    status = models.CharField(max_length=16, choices=Status.choices)
    error_type = models.CharField(max_length=64, blank=True)
    stop_reason = models.CharField(max_length=64, blank=True)
    attempts = models.JSONField(
        default=list, help_text="Every call made: provider, model, HTTP status, error, ms."
    )
    cost_usd = models.DecimalField(
        "cost (USD)", max_digits=18, decimal_places=9, null=True, help_text="Empty: price unknown."
    )
    price = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="What the cost was computed with, so that later prices don't change it: US"
        " dollars per million tokens of input, output, cache reads and cache writes.",
    )
    charges = models.JSONField(
        null=True,
        editable=False,
        help_text="What was settled with the row, by the lease of a limit. Empty: no limit of"
        " tokens or money applied.",
    )
    is_cost_assumed = models.BooleanField(
        "charge assumed",
        default=False,
        db_default=False,
        help_text="The most that the call could cost was charged, since nobody knows what it did.",
    )
    latency_ms = models.IntegerField(
        "latency (ms)", help_text="From the request's arrival to the end of the LLM call."
    )
    llm_latency_ms = models.IntegerField("LLM latency (ms)")
    request_id = models.CharField(max_length=128)
    trace_id = models.CharField(
        max_length=32, blank=True, help_text="Of the caller's traceparent header."
    )
    replay_of = models.UUIDField(null=True, help_text="The log row whose prompt was sent again.")
    metadata = models.JSONField(
        default=dict, blank=True, help_text="The caller's own names and values."
    )
    is_streamed = models.BooleanField("streamed", default=False, db_default=False)
    is_estimated = models.BooleanField(
        "tokens estimated",
        default=False,
        db_default=False,
        help_text="The provider did not say how many tokens there were, since the answer ended"
        " early.",
    )
    first_token_ms = models.IntegerField(
        "first token (ms)",
        null=True,
        help_text="Of a stream: from the request's arrival to the first content.",
    )
    created_at = models.DateTimeField(help_text="When the request arrived.")
    # By the database's clock. A row that waited in a journal is stored long after it arrived, and
    # a reader of the log in steps must not miss it.
    stored_at = models.DateTimeField(
        db_default=Now(), editable=False, help_text="When the row was stored."
    )

    class Meta:
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("read_content", "Can read prompts and answers"),
            ("export", "Can export generation logs"),
            ("replay", "Can send a generation again, to another model"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["user", "-id"], name="generation_log_user"),
            models.Index(fields=["api_key", "-id"], name="generation_log_api_key"),
            models.Index(fields=["request_id"], name="generation_log_request"),
            # Few rows are replays.
            models.Index(
                fields=["replay_of"],
                condition=Q(replay_of__isnull=False),
                name="generation_log_replay",
            ),
            # Failures are rare, so a list of them reads a small index.
            models.Index(
                fields=["status", "-id"],
                condition=~Q(status="succeeded"),
                name="generation_log_not_ok",
            ),
            # For rollups: the rows of a bucket, and those that were stored since.
            BrinIndex(fields=["created_at"], name="generation_log_created"),
            BrinIndex(fields=["stored_at"], name="generation_log_stored"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class GenerationBody(models.Model):
    """The texts of a generation. They are large and private, so they are kept for a shorter time
    than their log row, in a partition for each day of the ids.
    """

    # No constraint: the row and its texts are dropped at different times.
    log = models.OneToOneField(
        GenerationLog,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        db_column="id",
        db_constraint=False,
        related_name="body",
    )
    excerpt = models.TextField(
        blank=True,
        help_text="The start of an encrypted prompt; of others it is cut from the prompt.",
    )
    prompt = models.TextField(blank=True, help_text="As sent to the LLM.")
    system = models.TextField("system prompt", blank=True)
    result = models.TextField(blank=True)
    result_cleaned = models.BooleanField(
        default=False,
        help_text="The model's text contained characters that PostgreSQL can't store.",
    )
    error = models.TextField(blank=True)
    conversation = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="Messages, tools and options as JSON, where more than the prompt was sent.",
    )
    blocks = models.TextField(
        "content blocks",
        blank=True,
        default="",
        db_default="",
        help_text="The answer as JSON, where it is more than one text.",
    )
    raw_reply = models.TextField(
        blank=True, help_text="What the provider sent, shortened, if it was not a valid answer."
    )
    content = models.CharField(
        max_length=8,
        choices=LogContent.choices,
        default=LogContent.FULL,
        db_default=LogContent.FULL,
        help_text="What was kept of the texts.",
    )
    result_held = models.BooleanField(
        default=False,
        db_default=False,
        help_text="The result is whole until its request can't be repeated any more.",
    )
    encryption_key = models.CharField(
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text="The name of the key that encrypts the texts. Empty: they are not encrypted.",
    )

    class Meta:
        verbose_name_plural = "generation bodies"
        default_permissions = ()  # `read_content` of its log row decides
        indexes: ClassVar = [
            # Few, and none if everything is kept.
            models.Index(
                fields=["log"], condition=Q(result_held=True), name="generation_body_held"
            ),
        ]

    def __str__(self) -> str:
        return str(self.log_id)


class UsageLog(models.Model):
    """What a user spent; written after the answer has left."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    tokens = models.BigIntegerField()
    latency_ms = models.IntegerField()
    created_at = models.DateTimeField()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["user", "created_at"], name="generation_usage_user")
        ]

    def __str__(self) -> str:
        return f"{self.tokens} tokens of user {self.user_id}"


class IdempotencyKey(models.Model):
    """A caller's Idempotency-Key: claimed while its request runs, completed by its log row."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="HMAC-SHA256 of the request.")
    # A fencing token: a claim that lost its lease to another can no longer complete the key.
    claim = models.UUIDField()
    leased_until = models.DateTimeField()
    log_id = models.UUIDField(null=True, help_text="The log row whose answer a repetition gets.")
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "key"], name="generation_idempotency_key")
        ]

    def __str__(self) -> str:
        return f"{self.key} of user {self.user_id}"
