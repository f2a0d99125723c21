"""Who read, searched, exported or erased texts, in the admin."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus
from uuid import UUID

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html

from generation.admin import columns
from generation.admin.read_only import ReadOnlyAdmin
from generation.log_search.people import find_users
from generation.models import GenerationAccess

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


@admin.register(GenerationAccess)
class GenerationAccessAdmin(ReadOnlyAdmin):
    list_display = ("moment", "who", "action_label", "what", "row_count", "source")
    list_display_links = None  # only what is long is cut there
    fields = ("moment", "who", "source", "action_label", "whole", "rows")
    readonly_fields = fields
    list_filter = ("action",)
    search_fields = ("pk",)  # shows the search box; get_search_results searches
    search_help_text = "User name, user id or log id"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[GenerationAccess], search_term: str
    ) -> tuple[QuerySet[GenerationAccess], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        with contextlib.suppress(ValueError):
            of_log = queryset.filter(log_id=UUID(term))
            if of_log.exists():
                return of_log, False
        return queryset.filter(user_id__in=find_users(term)), False

    @admin.display(description="at")
    def moment(self, access: GenerationAccess) -> SafeString:
        return columns.second(access.at)

    @admin.display(description="who")
    def who(self, access: GenerationAccess) -> str:
        return columns.user_name(access) or "a command"

    @admin.display(description="action")
    def action_label(self, access: GenerationAccess) -> SafeString:
        return columns.label(access.action, access.get_action_display())

    @admin.display(description="what")
    def what(self, access: GenerationAccess) -> SafeString | str:
        return columns.excerpt(_selected(access)) if access.log_id is None else _link(access.log_id)

    @admin.display(description="what")
    def whole(self, access: GenerationAccess) -> SafeString | str:
        return _selected(access) if access.log_id is None else _link(access.log_id)

    @admin.display(description="generations")
    def row_count(self, access: GenerationAccess) -> SafeString:
        return columns.number(f"{access.rows:,}")

    @admin.display(description="from")
    def source(self, access: GenerationAccess) -> str:
        return access.address or "–"


def _selected(access: GenerationAccess) -> str:
    return unquote_plus(access.selection) or "the newest"


def _link(log_id: UUID) -> SafeString:
    page = reverse("admin:generation_generationlog_change", args=[log_id])
    return format_html('<a class="text-link log-id" href="{}">{}</a>', page, log_id)
