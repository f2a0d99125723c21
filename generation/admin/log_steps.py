"""From one log to the next that the list's filter finds."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect, QueryDict
from django.urls import reverse

from generation import access, conf
from generation.log_search.search import Place, search
from generation.log_search.selection import Selection, parse_query
from generation.log_search.sought import Sought
from generation.models import GenerationLog

if TYPE_CHECKING:
    from typing import Any

    from django.http import HttpRequest, HttpResponse

FILTERS = "_changelist_filters"  # Django's name for the list's query in the address of a page


def step(model_admin: Any, request: HttpRequest, place: Place) -> HttpResponse:
    """Leads to the page of the log next to a place; to the list, if the search for it ended early.

    The page of a log doesn't ask what is next to it: most are left without a step.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    query = QueryDict(request.GET.get(FILTERS, ""), mutable=True)
    query.pop("p", None)
    filters = query.urlencode()
    asked, _faults = parse_query(filters)
    if asked.words:
        if not _may_search(request):
            raise PermissionDenied
        try:  # also of a step that finds nothing: that, too, says what is in the texts
            access.record(access.Action.SEARCH, request=request, rows=0, selection=filters)
        except access.NotRecorded:
            return access.unavailable()
    page = search(Sought(GenerationLog.objects.only("pk"), asked), size=1, place=place)
    if page.rows:
        return HttpResponseRedirect(_page_of(page.rows[0].pk, filters))
    if page.edge is not None:
        query["p"] = f"{place.side}:{page.edge}"
        listed = reverse("admin:generation_generationlog_changelist")
        return HttpResponseRedirect(f"{listed}?{query.urlencode()}")
    age = "oldest" if place.side == "before" else "newest"
    messages.info(
        request, f"This is the {age} generation{' that the filter finds' if filters else ''}."
    )
    return HttpResponseRedirect(_page_of(place.key, filters))


def chosen_in(request: HttpRequest) -> bool:
    """Whether a log's page was reached from a list with filters."""
    asked, _faults = parse_query(request.GET.get(FILTERS, ""))
    return asked != Selection()


def _may_search(request: HttpRequest) -> bool:
    return request.user.has_perm(access.READ_CONTENT) and conf.load().search != "off"


def _page_of(key: object, filters: str) -> str:
    page = reverse("admin:generation_generationlog_change", args=[key])
    return f"{page}?{urlencode({FILTERS: filters})}" if filters else page
