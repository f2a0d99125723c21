"""How the lists show a value: users, moments, numbers, excerpts, labels."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from django.core.exceptions import ObjectDoesNotExist
from django.utils.html import format_html
from django.utils.timezone import localtime

from generation.admin.theme import display_for_label
from generation.models import ApiKey, GenerationAccess, GenerationLog

if TYPE_CHECKING:
    from datetime import datetime

    from django.utils.safestring import SafeString

    from generation.models import UsageLog

EXCERPT_CHARS = 120
LABEL_KINDS = {
    GenerationLog.Status.SUCCEEDED: "success",
    GenerationLog.Status.FAILED: "danger",
    GenerationLog.Status.TIMED_OUT: "warning",
    GenerationLog.Status.CANCELLED: "info",
    GenerationAccess.Action.EXPORT: "warning",
    GenerationAccess.Action.ERASE: "danger",
    ApiKey.State.ACTIVE: "success",
    ApiKey.State.EXPIRED: "warning",
    ApiKey.State.REVOKED: "danger",
}


def user_name(row: GenerationLog | UsageLog | GenerationAccess) -> str:
    """Returns the user's name, also of a user that was deleted: the row stays."""
    if row.user_id is None:  # nobody's
        return ""
    try:
        user = row.user
    except ObjectDoesNotExist:
        user = None
    return user.get_username() if user else f"deleted user {row.user_id}"


def api_key_name(log: GenerationLog) -> str:
    """Returns the name of the request's API key, also of one that was deleted: the row stays."""
    try:
        return log.api_key.name if log.api_key else ""
    except ObjectDoesNotExist:
        return f"deleted key {log.api_key_id}"


def tokens(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def minute(moment: datetime | None) -> str:
    return localtime(moment).strftime("%Y-%m-%d %H:%M") if moment else "never"


def second(moment: datetime) -> SafeString:
    text = localtime(moment).strftime("%Y-%m-%d %H:%M:%S")
    return format_html('<time class="log-time">{}</time>', text)


def excerpt(text: str) -> SafeString:
    line = " ".join(text.split())
    shown = line if len(line) <= EXCERPT_CHARS else f"{line[:EXCERPT_CHARS]}…"
    return format_html('<span class="log-excerpt">{}</span>', shown)


@cache  # rendering a label takes longer than the rest of its row
def label(status: str, text: str) -> SafeString:
    return display_for_label((status, text), "", LABEL_KINDS)


def number(text: str) -> SafeString:
    return format_html('<span class="log-number">{}</span>', text)
