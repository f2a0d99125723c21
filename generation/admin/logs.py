"""The generation logs in the admin. The list counts no table and asks nothing per row."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Left
from django.utils.html import format_html

from generation.admin import columns
from generation.admin.filters import ArrivalFilter, ModelFilter, ProviderFilter, StatusFilter
from generation.admin.pagination import NewestFirst
from generation.admin.read_only import ReadOnlyAdmin
from generation.models import GenerationLog, Profile
from generation.records import Attempt

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

BIGINT_MAX = 2**63 - 1
START_CHARS = 1000  # of a prompt, for its excerpt: longer than most templates


class LogList(NewestFirst):
    """Leaves the long texts in the database, because a page needs only each prompt's start, and
    that of its user's template, with which it may begin."""

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[GenerationLog]:
        queryset: QuerySet[GenerationLog] = super().get_queryset(request, exclude_parameters)
        shown = ("user_id", "provider", "model", "total_tokens", "status", "cost_usd")
        profile = Profile.objects.filter(pk=OuterRef("user_id"))
        return queryset.only(*shown, "latency_ms", "created_at").annotate(
            prompt_start=Left("prompt", START_CHARS),
            template_start=Subquery(profile.values(start=Left("prompt_template", START_CHARS))),
        )


@admin.register(GenerationLog)
class GenerationLogAdmin(ReadOnlyAdmin):
    list_display = (
        "arrived",
        "status_label",
        "user_name",
        "model_name",
        "prompt_excerpt",
        "token_count",
        "cost",
        "latency",
    )
    list_filter = (StatusFilter, ProviderFilter, ModelFilter, ("created_at", ArrivalFilter))
    list_filter_submit = True
    search_fields = ("pk",)  # shows the search box; get_search_results searches
    search_help_text = "User name, user id, request id or log id"
    changelist = LogList

    def get_search_results(
        self,
        request: HttpRequest,
        queryset: QuerySet[GenerationLog],
        search_term: str,
    ) -> tuple[QuerySet[GenerationLog], bool]:
        """Finds whole values only, each through its index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(Q(pk=UUID(term)) | Q(request_id=term)), False
        except ValueError:
            pass
        if GenerationLog.objects.filter(request_id=term).exists():
            return queryset.filter(request_id=term), False
        if term.isascii() and term.isdigit() and int(term) <= BIGINT_MAX:
            return queryset.filter(user_id=int(term)), False
        user_model = get_user_model()
        named = user_model._base_manager.filter(**{user_model.USERNAME_FIELD: term})
        return queryset.filter(user_id__in=list(named.values_list("pk", flat=True))), False

    @admin.display(description="status")
    def status_label(self, log: GenerationLog) -> SafeString:
        return columns.label(log.status, log.get_status_display())

    @admin.display(description="model")
    def model_name(self, log: GenerationLog) -> SafeString:
        return format_html('<span title="{}">{}</span>', log.provider, log.model)

    @admin.display(description="prompt")
    def prompt_excerpt(self, log: Any) -> SafeString:
        return columns.excerpt(without_template(log.prompt_start, log.template_start or ""))

    @admin.display(description="tokens")
    def token_count(self, log: GenerationLog) -> SafeString:
        return columns.number(columns.tokens(log.total_tokens))

    @admin.display(description="cost")
    def cost(self, log: GenerationLog) -> SafeString:
        return columns.number("–" if log.cost_usd is None else f"${log.cost_usd:.4f}")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        log = context["original"]
        context |= {
            "user_name": columns.user_name(log),
            "was_cancelled": log.status == GenerationLog.Status.CANCELLED,  # nothing failed
            "status_kind": columns.LABEL_KINDS.get(log.status, ""),
            "latency": f"{log.latency_ms:,} ms",
            "llm_latency": f"{log.llm_latency_ms:,} ms",
            "cost": "unknown" if log.cost_usd is None else f"${log.cost_usd.normalize():f}",
            "total_tokens": columns.tokens(log.total_tokens),
            "input_tokens": columns.tokens(log.input_tokens),
            "output_tokens": columns.tokens(log.output_tokens),
            "attempts": attempts_table(log.attempts),
        }
        return super().render_change_form(request, context, *args, **kwargs)


def without_template(prompt: str, template: str) -> str:
    """Returns what a request added to its user's template, or the whole prompt if that is unlike
    the template or adds nothing. Otherwise all rows of a user would begin with the same words."""
    fixed = template.partition("$")[0]
    added = prompt[len(fixed) :].strip() if prompt.startswith(fixed) else ""
    return f"… {added}" if fixed and added else prompt


def attempts_table(attempts: Any) -> dict[str, Any]:
    """Returns the attempts as a table, in the order of `Attempt`: jsonb keeps no order of keys."""
    rows = [row for row in attempts if isinstance(row, dict)] if attempts else []
    keys = dict.fromkeys(field.name for field in fields(Attempt))
    keys |= dict.fromkeys(key for row in rows for key in row)
    return {"headers": list(keys), "rows": [[row.get(key) for key in keys] for row in rows]}
