"""Filters of the list of generations that people have saved: their own, and shared ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Case, Q, When
from django.http import HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from generation.admin.export.selection import BadSelection, understand
from generation.admin.filters import in_words
from generation.admin.theme import ModelAdmin
from generation.log_search.selection import parse_query
from generation.models import SavedView

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

MOST = 50  # of a person's own
LISTED = 100
_LIST = "admin:generation_generationlog_changelist"
_VIEWS = "admin:generation_generationlog_views"
# Of a page, not of a filter.
_POSITIONS = ("p", "e")


class SavedViews(ModelAdmin):
    """Of the list of generations. All who see that save views for themselves, and share them; the
    owner changes them, and of shared ones a superuser too."""

    def get_urls(self) -> list[Any]:
        wrap, name = self.admin_site.admin_view, "generation_generationlog_views"
        return [
            path("views/", wrap(self.views), name=name),
            path("views/save/", wrap(require_POST(self.save_view)), name=f"{name}_save"),
            path("views/<int:key>/", wrap(require_POST(self.change_saved)), name=f"{name}_change"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        page = getattr(response, "context_data", None)
        if page is not None and "cl" in page:
            query = _filter_of(request.GET)
            page["saved_views"] = [
                {
                    "view": view,
                    "is_own": view.owner_id == request.user.pk,
                    "is_current": view.query == query,
                }
                for view in _visible(request)[:LISTED]
            ]
            is_saved = any(each["is_current"] for each in page["saved_views"])
            page["view_query"] = "" if is_saved else query
        return response

    def views(self, request: HttpRequest) -> HttpResponse:
        """The page on which they are renamed, shared and deleted."""
        self._require_list(request)
        return TemplateResponse(
            request,
            "admin/generation/generationlog/views.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": "Saved views",
                "list_url": reverse(_LIST),
                "rows": [
                    {
                        "view": view,
                        "filter": in_words(parse_query(view.query)[0]).values(),
                        "may_change": _may_change(request, view),
                    }
                    for view in _visible(request)[:LISTED]
                ],
            },
        )

    def save_view(self, request: HttpRequest) -> HttpResponse:
        self._require_list(request)
        query = _filter_of(QueryDict(request.POST.get("query", "")))
        owner: Any = request.user.pk
        view = SavedView(owner_id=owner, query=query)
        if not query:
            messages.error(request, "There is no filter to save: choose one first.")
        elif SavedView.objects.filter(owner_id=owner).count() >= MOST:
            messages.error(request, f"You have {MOST} views already. Delete one first.")
        elif _fill(request, view):
            messages.success(request, f"The view “{view.name}” is saved.")
        return HttpResponseRedirect(f"{reverse(_LIST)}?{view.query}")

    def change_saved(self, request: HttpRequest, key: int) -> HttpResponse:
        """Renames, shares or deletes one."""
        self._require_list(request)
        view = get_object_or_404(_visible(request), pk=key)
        if not _may_change(request, view):
            raise PermissionDenied
        if "delete" in request.POST:
            view.delete()
            messages.success(request, f"The view “{view.name}” is deleted.")
        elif _fill(request, view):
            messages.success(request, f"The view “{view.name}” is saved.")
        return HttpResponseRedirect(reverse(_VIEWS))

    def _require_list(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _fill(request: HttpRequest, view: SavedView) -> bool:
    """Saves a view as the form says. Returns whether it could be; else the next page says why."""
    name = request.POST.get("name", "").replace("\0", "")  # which PostgreSQL refuses
    view.name = " ".join(name.split())
    view.is_shared = "is_shared" in request.POST
    try:
        view.full_clean(exclude=["owner"], validate_unique=False, validate_constraints=False)
        understand(view.query)
        with transaction.atomic():
            view.save()
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    except BadSelection as error:
        messages.error(request, str(error))
        view.query = ""  # the list would not show it
    except IntegrityError:
        messages.error(request, f"There is a view “{view.name}” already. Choose another name.")
    else:
        return True
    return False


def _visible(request: HttpRequest) -> QuerySet[SavedView]:
    """The person's own first."""
    is_own = Q(owner_id=request.user.pk)
    visible = SavedView.objects.filter(is_own | Q(is_shared=True)).select_related("owner")
    return visible.order_by(Case(When(is_own, then=0), default=1), "name", "pk")


def _may_change(request: HttpRequest, view: SavedView) -> bool:
    return view.owner_id == request.user.pk or request.user.is_superuser


def _filter_of(given: QueryDict) -> str:
    """Returns the filter in an address, in one spelling."""
    kept = QueryDict(mutable=True)
    for name in sorted(given.keys() - set(_POSITIONS)):
        if values := [value for value in given.getlist(name) if value]:
            kept.setlist(name, values)
    return kept.urlencode()
