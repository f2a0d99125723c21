"""The list's *Export*: a page with the formats, and the file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import path, reverse

from generation import access
from generation.admin.export import download
from generation.admin.export.selection import BadSelection, select
from generation.admin.filters import in_words
from generation.admin.theme import ModelAdmin
from generation.log_search.selection import parse_query

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

_KINDS = (
    ("csv", "CSV", "For spreadsheets. A text that begins like a formula gets an apostrophe."),
    ("jsonl", "JSON lines", "One object a line, each value as it is stored."),
    ("parquet", "Parquet", "For DuckDB, pandas and Spark. It can be read once it is complete."),
)


class ExportPages(ModelAdmin):
    """Of the list of generations."""

    def get_urls(self) -> list[Any]:
        wrap, name = self.admin_site.admin_view, "generation_generationlog_export"
        return [
            path("export/", wrap(self.export), name=name),
            path("export/choose/", wrap(self.choose), name=f"{name}_choose"),
            *super().get_urls(),
        ]

    @access.outside_transactions
    def export(self, request: HttpRequest) -> HttpResponseBase:
        """Streams what the list's filter finds."""
        self._require_export(request)
        return download.respond(request)

    def choose(self, request: HttpRequest) -> HttpResponse:
        self._require_export(request)
        query = request.GET.urlencode()
        try:
            select(query)
            fault = ""
        except BadSelection as error:
            fault = str(error)
        return TemplateResponse(
            request,
            "admin/generation/generationlog/export.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": "Export",
                "fault": fault,
                "chosen": in_words(parse_query(query)[0]).values(),
                "hidden": [(name, value) for name, vs in request.GET.lists() for value in vs],
                "query": query,
                "kinds": _KINDS,
                "with_texts": request.user.has_perm(access.READ_CONTENT),
                "export_url": reverse("admin:generation_generationlog_export"),
                "list_url": reverse("admin:generation_generationlog_changelist"),
            },
        )

    def _require_export(self, request: HttpRequest) -> None:
        if not (self.has_view_permission(request) and request.user.has_perm(access.EXPORT)):
            raise PermissionDenied
