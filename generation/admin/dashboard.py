"""The sidebar, and the outcomes of the newest requests on the index page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from django.urls import reverse

from generation import conf
from generation.models import GenerationLog
from generation.telemetry.durations import percentile

if TYPE_CHECKING:
    from django.http import HttpRequest

# Read from the end of one index, so the size of the table does not matter.
NEWEST = 1000


def add_newest_figures(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK."""
    if not request.user.has_perm("generation.view_generationlog"):
        return context
    newest = GenerationLog.objects.order_by("-pk").values_list("status", "latency_ms", "created_at")
    rows = list(newest[:NEWEST])
    if not rows:
        return context
    counts = Counter(status for status, _, _ in rows)
    answered = [ms for status, ms, _ in rows if status == GenerationLog.Status.SUCCEEDED]
    logs = reverse("admin:generation_generationlog_changelist")
    return context | {
        "newest": {
            "count": len(rows),
            "since": rows[-1][2],
            "latency": _latency(answered),
            "statuses": [
                {
                    "label": label,
                    "count": counts[value],
                    "percent": f"{counts[value] / len(rows):.1%}",
                    "url": f"{logs}?status={value}",
                }
                for value, label in GenerationLog.Status.choices
            ],
        }
    }


def _latency(answered_ms: list[int]) -> str:
    if not answered_ms:
        return ""
    ordered = sorted(answered_ms)
    median, slow = (percentile(ordered, share) / 1000 for share in (0.50, 0.95))
    return f"{median:.2f} s median, {slow:.2f} s at the 95th percentile"


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's SIDEBAR navigation. Returns the pages that this user may see."""
    settings = conf.load()
    lists = [
        ("Generation logs", "list_alt", "generation", "generationlog"),
        ("Profiles", "edit_note", "generation", "profile"),
        ("Usage", "data_usage", "generation", "usagelog"),
        ("Storage", "hard_drive", "generation", "maintenance"),
        ("API keys", "key", "generation", "apikey"),
        ("Limits", "speed", "generation", "limit"),
        ("Access record", "visibility", "generation", "generationaccess"),
        ("Users", "person", "auth", "user"),
        ("Groups", "group", "auth", "group"),
    ]
    pages = [
        {"title": title, "icon": icon, "link": reverse(f"admin:{app}_{model}_changelist")}
        for title, icon, app, model in lists
        if request.user.has_perm(f"{app}.view_{model}")
    ]
    service = [{"title": "API docs", "icon": "api", "link": reverse("staccato:openapi-view")}]
    if settings.pool_access != "off":
        service.append({"title": "Live", "icon": "show_chart", "link": reverse("staccato-live")})
        service.append(
            {"title": "Pool statistics", "icon": "database", "link": reverse("staccato:pool")}
        )
    return [{"title": "Review", "items": pages}, {"title": "Service", "items": service}]
