"""The pages *Dashboard*, *Errors* and *Spending* of the list of generations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.forms import Media
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone

from generation.admin.overview import dashboard, errors, spending
from generation.admin.overview.periods import named
from generation.admin.overview.sums import TIME_LIMIT_MS
from generation.admin.pagination import NewestFirstAdmin
from generation.admin.theme import IS_UNFOLD
from generation.log_search.walk import is_cut_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

    from generation.admin.overview.periods import Period

_STYLES = Media(css={"all": ["generation/overview.css"]})


class OverviewPages(NewestFirstAdmin):
    """Of the list of generations: who may see its figures may see these."""

    class Media(NewestFirstAdmin.Media):
        css: ClassVar = {"all": ["generation/charts.css"]}

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("dashboard/", wrap(self.dashboard), name="generation_generationlog_dashboard"),
            path("errors/", wrap(self.errors), name="generation_generationlog_errors"),
            path("spending/", wrap(self.spending), name="generation_generationlog_spending"),
            *super().get_urls(),
        ]

    def dashboard(self, request: HttpRequest) -> HttpResponse:
        return self._page(request, "dashboard", dashboard.context)

    def errors(self, request: HttpRequest) -> HttpResponse:
        return self._page(request, "errors", errors.context)

    def spending(self, request: HttpRequest) -> HttpResponse:
        return self._page(request, "spending", lambda period: spending.context(period, request.GET))

    def _page(
        self, request: HttpRequest, name: str, read: Callable[[Period], dict[str, Any]]
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context: dict[str, Any] = {}
        try:
            context = read(named(request.GET.get("period", "")))
        except OperationalError as error:
            if not is_cut_off(error):
                raise
            limit = f"{TIME_LIMIT_MS / 1000:g} s"
            messages.warning(request, f"The database did not answer within {limit}.")
        if until := context.get("until"):
            context["is_late"] = dashboard.is_late(until, timezone.now())
        context = {
            "title": name.capitalize(),
            **context,
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media + _STYLES,
            "is_unfold": IS_UNFOLD,  # whose pages show no title
        }
        return TemplateResponse(request, f"admin/generation/overview/{name}.html", context)
