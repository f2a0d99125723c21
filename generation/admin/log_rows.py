"""The rows of the list of logs as HTML. By Django's own way, they cost four times the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.timezone import localtime

from generation.admin import columns
from generation.admin.log_steps import FILTERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from django.utils.safestring import SafeString

    from generation.admin.log_list import LogList
    from generation.models import GenerationLog

HEADS = ("Arrived", "Status", "User", "Model", "Prompt", "Tokens", "Cost", "Latency")
NUMBERS = {"Tokens", "Cost", "Latency"}
PROMPT = "Prompt"
_ROW = (
    '<tr id="log-{}"><th scope="row" class="log-time"><a href="{}">{}</a></th>'
    '<td>{}</td><td>{}</td><td title="{}">{}</td>{}'
    '<td class="log-number">{}</td><td class="log-number">{}</td><td class="log-number">{}</td>'
    "</tr>\n"
)


def heads(*, with_prompts: bool) -> list[tuple[str, bool]]:
    """Returns the columns' titles, each with whether it has numbers."""
    return [(name, name in NUMBERS) for name in HEADS if with_prompts or name != PROMPT]


def rows(logs: LogList, *, with_prompts: bool) -> SafeString:
    """Returns the table's rows. `read_names()` has been called, with prompts `read_excerpts()`."""
    return format_html_join("", _ROW, _cells(logs, with_prompts=with_prompts))


def _cells(logs: LogList, *, with_prompts: bool) -> Iterator[tuple[object, ...]]:
    base = reverse("admin:generation_generationlog_changelist")
    suffix = detail_suffix(logs)
    for log in logs.result_list:
        yield (
            log.pk,
            mark_safe(f"{base}{log.pk}/change/{suffix}"),  # noqa: S308  # a UUID and an encoded query
            localtime(log.created_at).strftime("%Y-%m-%d %H:%M:%S"),
            _status(log),
            log.user_label,
            log.provider,
            log.model,
            _prompt(log) if with_prompts else "",
            columns.tokens(log.total_tokens),
            _cost(log.cost_usd),
            f"{log.latency_ms / 1000:.2f} s",
        )


def detail_suffix(logs: LogList) -> str:
    """Returns what a log's address ends with, so that its page knows the list that led to it."""
    query = logs.get_query_string().removeprefix("?")
    return f"?{urlencode({FILTERS: query})}" if query else ""


def _status(log: GenerationLog) -> SafeString:
    label = columns.label(log.status, log.get_status_display())
    if not log.error_type:
        return label
    return format_html('{}<span class="log-aside">{}</span>', label, log.error_type)


def _cost(cost: Decimal | None) -> str:
    if cost is None:
        return "–"
    return f"${cost:.4f}" if cost else "$0"


def _prompt(log: GenerationLog) -> SafeString:
    line = " ".join(log.excerpt.split())  # type: ignore[attr-defined]  # of read_excerpts()
    shown = line if len(line) <= columns.EXCERPT_CHARS else f"{line[: columns.EXCERPT_CHARS]}…"
    return format_html('<td class="log-prompt"><span>{}</span></td>', shown)
