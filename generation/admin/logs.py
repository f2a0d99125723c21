"""The generation logs in the admin. The list counts no table and asks nothing per row.

Texts are shown to those who may read them, and read after the access is recorded.
"""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, TextField, Value
from django.db.models.functions import Coalesce, Left, NullIf
from django.utils.html import format_html

from generation import access, conf
from generation.admin import columns
from generation.admin.conversations import turns_of
from generation.admin.export.pages import ExportPages
from generation.admin.filters import ArrivalFilter, ModelFilter, ProviderFilter, StatusFilter
from generation.admin.overview import attempts
from generation.admin.overview.pages import OverviewPages
from generation.admin.pagination import NewestFirst
from generation.admin.read_only import ReadOnlyAdmin
from generation.admin.replays import Replays
from generation.admin.saved_views import SavedViews
from generation.admin.users import find_users
from generation.models import GenerationBody, GenerationLog, Profile
from generation.privacy.encryption import EXCERPT_CHARS, KeyRing
from generation.records import Attempt

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString


class LogList(NewestFirst):
    """Reads few columns of the page's logs."""

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[GenerationLog]:
        queryset: QuerySet[GenerationLog] = super().get_queryset(request, exclude_parameters)
        shown = ("user_id", "provider", "model", "total_tokens", "status", "cost_usd")
        return queryset.only(*shown, "latency_ms", "created_at")

    def read_excerpts(self) -> None:
        """Of the logs' texts, read each prompt's start, and that of its user's template, with which
        it may begin."""
        bodies = GenerationBody.objects.filter(pk__in=[log.pk for log in self.result_list])
        ring = KeyRing.of(conf.load())
        encrypted = NullIf("excerpt", Value("", TextField()))
        prompt = Coalesce(encrypted, Left("prompt", EXCERPT_CHARS, output_field=TextField()))
        excerpts = {
            key: ring.show(key, "excerpt", excerpt, encryption_key)
            for key, excerpt, encryption_key in bodies.values_list("pk", prompt, "encryption_key")
        }
        profiles = Profile.objects.filter(pk__in={log.user_id for log in self.result_list})
        start = Left("prompt_template", EXCERPT_CHARS)
        templates = dict(profiles.values_list("pk", start))
        for log in self.result_list:
            excerpt = excerpts.get(log.pk, "")  # kept for a shorter time than the log
            log.excerpt = without_template(excerpt, templates.get(log.user_id, ""))


@admin.register(GenerationLog)
class GenerationLogAdmin(OverviewPages, SavedViews, ExportPages, Replays, ReadOnlyAdmin):
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

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        may_read = request.user.has_perm(access.READ_CONTENT)
        return tuple(name for name in self.list_display if may_read or name != "prompt_excerpt")

    # A record that waits for the end of the request's transaction might be rolled back.
    @access.outside_transactions
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_export = request.user.has_perm(access.EXPORT)
        response = super().changelist_view(
            request, {**(extra_context or {}), "may_export": may_export}
        )
        page = getattr(response, "context_data", None) or {}
        logs: LogList | None = page.get("cl")  # None: a redirect
        if logs is None or not request.user.has_perm(access.READ_CONTENT):
            return response
        if logs.result_list:
            action = access.Action.SEARCH if logs.query else access.Action.READ
            try:
                access.record(
                    action,
                    request=request,
                    rows=len(logs.result_list),
                    selection=request.META.get("QUERY_STRING", ""),
                )
            except access.NotRecorded:
                return access.unavailable()
            logs.read_excerpts()
        return response

    @access.outside_transactions
    def change_view(self, *args: Any, **kwargs: Any) -> HttpResponse:
        return super().change_view(*args, **kwargs)

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
        named = Q(request_id=term)
        with contextlib.suppress(ValueError):
            named |= Q(pk=UUID(term))
        if GenerationLog.objects.filter(named).exists():
            return queryset.filter(named), False
        return queryset.filter(user_id__in=find_users(term)), False

    @admin.display(description="status")
    def status_label(self, log: GenerationLog) -> SafeString:
        return columns.label(log.status, log.get_status_display())

    @admin.display(description="model")
    def model_name(self, log: GenerationLog) -> SafeString:
        return format_html('<span title="{}">{}</span>', log.provider, log.model)

    @admin.display(description="prompt")
    def prompt_excerpt(self, log: GenerationLog) -> SafeString:
        return columns.excerpt(log.excerpt)  # type: ignore[attr-defined]  # of read_excerpts()

    @admin.display(description="tokens")
    def token_count(self, log: GenerationLog) -> SafeString:
        return columns.number(columns.tokens(log.total_tokens))

    @admin.display(description="cost")
    def cost(self, log: GenerationLog) -> SafeString:
        return columns.number("–" if log.cost_usd is None else f"${log.cost_usd:.4f}")

    def _read_body(self, log: GenerationLog) -> Any:
        return KeyRing.of(conf.load()).reveal(GenerationBody.objects.filter(pk=log.pk).first())

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        log = context["original"]
        may_read = request.user.has_perm(access.READ_CONTENT)
        if may_read:
            try:
                access.record(access.Action.READ, request=request, rows=1, log_id=log.pk)
            except access.NotRecorded:
                return access.unavailable()
        body = self._read_body(log) if may_read else None
        if may_read:
            context |= self.replay_context(request, log)
        context |= {
            "may_read": may_read,
            "body": body,
            "conversation": turns_of(body.conversation) if body else (),
            "blocks": turns_of(body.blocks) if body else (),
            "user_name": columns.user_name(log),
            "user_key": quote(str(log.user_id or ""), safe=""),
            "api_key_name": columns.api_key_name(log),
            "was_cancelled": log.status == GenerationLog.Status.CANCELLED,  # nothing failed
            "status_label": columns.label(log.status, log.get_status_display()),
            "latency": f"{log.latency_ms:,} ms",
            "llm_latency": f"{log.llm_latency_ms:,} ms",
            "first_token": "–" if log.first_token_ms is None else f"{log.first_token_ms:,} ms",
            "cost": cost_of(log),
            "total_tokens": columns.tokens(log.total_tokens),
            "input_tokens": columns.tokens(log.input_tokens),
            "output_tokens": columns.tokens(log.output_tokens),
            "cached_tokens": columns.tokens(log.cache_read_tokens),
            "max_tokens": columns.tokens(log.max_tokens),
            "attempts": attempts_table(log.attempts),
            "fall": attempts.drawn(log),
        }
        return super().render_change_form(request, context, *args, **kwargs)


def cost_of(log: GenerationLog) -> str:
    """Returns the cost with its price, and whether more was charged to its caller's limits."""
    cost = "unknown" if log.cost_usd is None else f"${log.cost_usd.normalize():f}"
    price = f" (at {log.price} per million)" if log.price else ""
    return f"{cost}{price}{', charge assumed' if log.is_cost_assumed else ''}"


def without_template(prompt: str, template: str) -> str:
    """Returns what a request added to its user's template, or the whole prompt if that is unlike
    the template or adds nothing. Otherwise all rows of a user would begin with the same words."""
    fixed = template.partition("$")[0]
    added = prompt[len(fixed) :].strip() if prompt.startswith(fixed) else ""
    return f"… {added}" if fixed and added else prompt


def attempts_table(made: Any) -> dict[str, Any]:
    """Returns the attempts as a table, in the order of `Attempt`: jsonb keeps no order of keys."""
    rows = [row for row in made if isinstance(row, dict)] if made else []
    keys = dict.fromkeys(field.name for field in fields(Attempt))
    keys |= dict.fromkeys(key for row in rows for key in row)
    return {"headers": list(keys), "rows": [[row.get(key) for key in keys] for row in rows]}
