"""The base of the lists whose rows the service alone writes."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin import ShowFacets

from generation.admin import columns
from generation.admin.pagination import NewestFirstAdmin

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from generation.models import GenerationAccess, GenerationLog, UsageLog


class ReadOnlyAdmin(NewestFirstAdmin):
    """Nobody adds, changes or deletes a row here."""

    actions = None
    list_per_page = 100
    show_facets = ShowFacets.NEVER  # facets count the table
    list_fullwidth = True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Not select_related, because its inner join would hide the rows of deleted users.
        return super().get_queryset(request).prefetch_related("user")

    @admin.display(description="user")
    def user_name(self, row: GenerationLog | UsageLog | GenerationAccess) -> str:
        return columns.user_name(row)

    @admin.display(description="arrived")
    def arrived(self, row: GenerationLog | UsageLog) -> SafeString:
        return columns.second(row.created_at)

    @admin.display(description="latency")
    def latency(self, row: GenerationLog | UsageLog) -> SafeString:
        return columns.number(f"{row.latency_ms / 1000:.2f} s")
