"""What users spent, in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from generation.admin import columns
from generation.admin.read_only import ReadOnlyAdmin
from generation.models import UsageLog

if TYPE_CHECKING:
    from django.utils.safestring import SafeString


@admin.register(UsageLog)
class UsageLogAdmin(ReadOnlyAdmin):
    list_display = ("arrived", "user_name", "token_count", "latency")

    @admin.display(description="tokens")
    def token_count(self, usage: UsageLog) -> SafeString:
        return columns.number(columns.tokens(usage.tokens))
