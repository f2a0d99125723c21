"""The logs to review, the profiles to edit. No list here counts a table or asks per row."""

# ruff: noqa: ARG002  # Django's hooks are given more than each needs

from __future__ import annotations

from dataclasses import fields
from datetime import date, datetime, time, timedelta
from functools import cache
from string import Template
from typing import TYPE_CHECKING, Any, ClassVar, get_args
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db.models import Q
from django.db.models.functions import Left
from django.utils.html import format_html
from django.utils.timezone import localtime, make_aware
from unfold.utils import display_for_label

from generation import conf
from generation.admin.pagination import NewestFirst
from generation.models import GenerationLog, Profile, UsageLog
from generation.records import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django import forms
    from django.contrib.admin.filters import FieldListFilter, SimpleListFilter
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import ForeignKey, Model, QuerySet
    from django.forms import ModelChoiceField
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    # Unfold ships no types; its classes extend these.
    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[Profile]
    DropdownFilter = SimpleListFilter
    RangeDateTimeFilter = FieldListFilter
else:
    from django.forms import ModelForm
    from unfold.admin import ModelAdmin
    from unfold.contrib.filters.admin import DropdownFilter, RangeDateTimeFilter

Status = GenerationLog.Status

BIGINT_MAX = 2**63 - 1
LABELS = {
    Status.SUCCEEDED: "success",
    Status.FAILED: "danger",
    Status.TIMED_OUT: "warning",
    Status.CANCELLED: "info",
}
# How many of the newest rows tell what providers and models there are to choose from: what
# is distinct in the whole table, only the whole table knows.
SAMPLE = 1000
# An id is made between a request's arrival and its row's writing. No request takes longer
# than this: `LLM_TIMEOUT` is an hour at most.
LONGEST_REQUEST = timedelta(hours=2)
CLOCK_STEP = timedelta(minutes=1)
EXCERPT = 120


def name_of(row: GenerationLog | UsageLog) -> str:
    """The user's name; the user may be gone, and the row stays."""
    try:
        return row.user.get_username()
    except ObjectDoesNotExist:
        return f"deleted user {row.user_id}"


def tokens(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def excerpt(text: str) -> SafeString:
    line = " ".join(text.split())
    shown = line if len(line) <= EXCERPT else f"{line[:EXCERPT]}…"
    return format_html('<span class="log-excerpt">{}</span>', shown)


@cache  # rendering one takes longer than the rest of its row
def label(status: str, text: str) -> SafeString:
    shown: SafeString = display_for_label((status, text), "", LABELS)
    return shown


def number(text: str) -> SafeString:
    return format_html('<span class="log-number">{}</span>', text)


class ColumnFilter(DropdownFilter):
    def queryset(
        self, request: HttpRequest, queryset: QuerySet[GenerationLog]
    ) -> QuerySet[GenerationLog]:
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class StatusFilter(ColumnFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        return Status.choices


class SampledFilter(ColumnFilter):
    """Offers the values of the newest rows; any other can be named in the address."""

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        column = str(self.parameter_name)
        newest = GenerationLog.objects.order_by("-pk").values_list(column, flat=True)
        values = {*newest[:SAMPLE], self.value()}
        return [(value, value) for value in sorted(filter(None, values))]


class ProviderFilter(SampledFilter):
    title = "provider"
    parameter_name = "provider"


class ModelFilter(SampledFilter):
    title = "model"
    parameter_name = "model"


class ArrivalFilter(RangeDateTimeFilter):
    """From a moment to before another, bounded through the ids, which are ordered by time.

    Without the bounds a range of last year would be searched for from the newest row down.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "arrival"

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[GenerationLog]
    ) -> QuerySet[GenerationLog]:
        limits: dict[str, Any] = {}
        try:
            if start := self._moment("from", days=0):
                limits |= {"created_at__gte": start, "pk__gte": first_id(start - CLOCK_STEP)}
            if end := self._moment("to", days=1):
                limits |= {"created_at__lt": end, "pk__lt": first_id(end + LONGEST_REQUEST)}
        except (ValueError, OverflowError):
            messages.warning(
                request, "The dates were not understood: use 2026-01-31 and, if need be, 14:05."
            )
            return queryset
        return queryset.filter(**limits)

    def _moment(self, side: str, *, days: int) -> datetime | None:
        """The moment typed; for a day alone, its start or that of a later day."""
        day = str(self.used_parameters.get(f"created_at_{side}_0") or "")
        clock = str(self.used_parameters.get(f"created_at_{side}_1") or "")
        if not day:
            return None
        moment = datetime.combine(
            date.fromisoformat(day), time.fromisoformat(clock) if clock else time()
        )
        return make_aware(moment if clock else moment + timedelta(days=days))


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a moment: its first 48 bits are the milliseconds."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


class LogList(NewestFirst):
    """Leaves the long texts in the database: a page needs the start of each prompt only."""

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[GenerationLog]:
        queryset: QuerySet[GenerationLog] = super().get_queryset(request, exclude_parameters)
        columns = ("user_id", "provider", "model", "total_tokens", "status", "cost_usd")
        return queryset.only(*columns, "latency_ms", "created_at").annotate(
            prompt_start=Left("prompt", 2 * EXCERPT)
        )


class ReadOnlyAdmin(ModelAdmin):
    """Rows that only the service writes."""

    actions = None
    sortable_by = ()
    list_per_page = 100
    show_facets = ShowFacets.NEVER  # facets count
    list_fullwidth = True

    class Media:
        css: ClassVar = {"all": ["generation/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return NewestFirst

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Not select_related: its inner join would hide the rows of deleted users.
        return super().get_queryset(request).prefetch_related("user")

    @admin.display(description="user")
    def who(self, row: GenerationLog | UsageLog) -> str:
        return name_of(row)

    @admin.display(description="arrived")
    def arrived(self, row: GenerationLog | UsageLog) -> SafeString:
        moment = localtime(row.created_at).strftime("%Y-%m-%d %H:%M:%S")
        return format_html('<time class="log-time">{}</time>', moment)

    @admin.display(description="latency")
    def latency(self, row: GenerationLog | UsageLog) -> SafeString:
        return number(f"{row.latency_ms / 1000:.2f} s")


@admin.register(GenerationLog)
class GenerationLogAdmin(ReadOnlyAdmin):
    list_display = (
        "arrived",
        "status_label",
        "who",
        "model_name",
        "prompt_excerpt",
        "token_count",
        "cost",
        "latency",
    )
    list_filter = (
        StatusFilter,
        ProviderFilter,
        ModelFilter,
        ("created_at", ArrivalFilter),
    )
    list_filter_submit = True
    search_fields = ("pk",)  # shows the box; get_search_results looks up
    search_help_text = "User, user id, request id or log id"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LogList

    def get_search_results(
        self,
        request: HttpRequest,
        queryset: QuerySet[GenerationLog],
        search_term: str,
    ) -> tuple[QuerySet[GenerationLog], bool]:
        """Whole values only, each through its index."""
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
        named = user_model._base_manager.filter(**{user_model.USERNAME_FIELD: term})  # noqa: SLF001
        return queryset.filter(user_id__in=list(named.values_list("pk", flat=True))), False

    @admin.display(description="status")
    def status_label(self, log: GenerationLog) -> SafeString:
        return label(log.status, log.get_status_display())

    @admin.display(description="model")
    def model_name(self, log: GenerationLog) -> SafeString:
        return format_html('<span title="{}">{}</span>', log.provider, log.model)

    @admin.display(description="prompt")
    def prompt_excerpt(self, log: GenerationLog) -> SafeString:
        return excerpt(log.prompt_start)  # type: ignore[attr-defined]  # LogList adds it

    @admin.display(description="tokens")
    def token_count(self, log: GenerationLog) -> SafeString:
        return number(tokens(log.total_tokens))

    @admin.display(description="cost")
    def cost(self, log: GenerationLog) -> SafeString:
        return number("–" if log.cost_usd is None else f"${log.cost_usd:.4f}")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        log = context["original"]
        context |= {
            "user_name": name_of(log),
            "status_kind": LABELS.get(log.status, ""),
            "latency": f"{log.latency_ms:,} ms",
            "llm_latency": f"{log.llm_latency_ms:,} ms",
            "cost": "unknown" if log.cost_usd is None else f"${log.cost_usd.normalize():f}",
            "total_tokens": tokens(log.total_tokens),
            "input_tokens": tokens(log.input_tokens),
            "output_tokens": tokens(log.output_tokens),
            "attempts": attempts_table(log.attempts),
        }
        return super().render_change_form(request, context, *args, **kwargs)


def attempts_table(attempts: Any) -> dict[str, Any]:
    """The attempts as the table they are. PostgreSQL keeps no order of JSON's keys."""
    rows = [row for row in attempts if isinstance(row, dict)] if attempts else []
    keys = dict.fromkeys(field.name for field in fields(Attempt))
    keys |= dict.fromkeys(key for row in rows for key in row)
    return {"headers": list(keys), "rows": [[row.get(key) for key in keys] for row in rows]}


@admin.register(UsageLog)
class UsageLogAdmin(ReadOnlyAdmin):
    list_display = ("arrived", "who", "token_count", "latency")

    @admin.display(description="tokens")
    def token_count(self, usage: UsageLog) -> SafeString:
        return number(f"{usage.tokens:,}")


class ProfileForm(ModelForm):
    def clean_prompt_template(self) -> str:
        text: str = self.cleaned_data["prompt_template"]
        for match in Template.pattern.finditer(text):
            if match["invalid"] is not None:
                line = text.count("\n", 0, match.start()) + 1
                raise ValidationError(
                    f"Line {line} has a $ with no name behind it. Write $$ for a dollar,"
                    " $input for the request's input, $name or ${name} for a variable."
                )
        return text

    def clean_provider(self) -> str:
        provider: str = self.cleaned_data["provider"]
        known = get_args(conf.ProviderName)
        if provider and provider not in known:
            raise ValidationError(f"Leave it empty, or name one of {', '.join(known)}.")
        return provider


@admin.register(Profile)
class ProfileAdmin(ModelAdmin):
    form = ProfileForm
    list_display = ("user", "template_excerpt", "provider", "model", "max_tokens")
    list_select_related = ("user",)
    sortable_by = ()
    show_full_result_count = False
    warn_unsaved_form = True
    search_help_text = "User or user id"
    fields = ("user", "prompt_template", "system", "provider", "model", "max_tokens")

    class Media:
        css: ClassVar = {"all": ["generation/admin.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return NewestFirst

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (f"user__{get_user_model().USERNAME_FIELD}__startswith", "user__pk__exact")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Profile | None = None
    ) -> tuple[str, ...]:
        # The user is the primary key: another one would make a second profile.
        return ("user",) if obj else ()

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # Declared, it would be an error of the system check where users have no admin.
        users = self.admin_site._registry.get(get_user_model())  # noqa: SLF001
        return ("user",) if users and users.get_search_fields(request) else ()

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        # A plain select would list every user.
        if db_field.name not in self.get_autocomplete_fields(request):
            kwargs["widget"] = ForeignKeyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @admin.display(description="prompt template")
    def template_excerpt(self, profile: Profile) -> SafeString:
        return excerpt(profile.prompt_template)
