"""The sidebar, and the figures of the last day on the index page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.urls import reverse

from generation import conf
from generation.admin.overview import dashboard as overview

if TYPE_CHECKING:
    from django.http import HttpRequest


def add_figures(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK: the last day, from the rollups."""
    if not request.user.has_perm("generation.view_generationlog"):
        return context
    return context | {"figures": overview.day()}


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
    pages: list[dict[str, Any]] = [
        {"title": title, "icon": icon, "link": reverse(f"admin:{app}_{model}_changelist")}
        for title, icon, app, model in lists
        if request.user.has_perm(f"{app}.view_{model}")
    ]
    if request.user.has_perm("generation.view_generationlog"):
        dashboard, errors, spending = links = [
            reverse(f"admin:generation_generationlog_{name}")
            for name in ("dashboard", "errors", "spending")
        ]
        # Unfold would mark the list as well, since its address is how these begin.
        pages[0]["active"] = request.path.startswith(pages[0]["link"]) and request.path not in links
        is_dashboard = request.path in (dashboard, spending)  # it leads to a spender's page
        pages[:0] = [
            {
                "title": "Dashboard",
                "icon": "monitoring",
                "link": dashboard,
                "active": is_dashboard,
            },
            {"title": "Errors", "icon": "error", "link": errors},
        ]
    service = [{"title": "API docs", "icon": "api", "link": reverse("staccato:openapi-view")}]
    if settings.pool_access != "off":
        service.append({"title": "Live", "icon": "show_chart", "link": reverse("staccato-live")})
        service.append(
            {"title": "Pool statistics", "icon": "database", "link": reverse("staccato:pool")}
        )
    return [{"title": "Review", "items": pages}, {"title": "Service", "items": service}]
