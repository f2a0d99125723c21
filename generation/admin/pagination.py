"""Lists of tables that are too large to count, to skip through, or to scan."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import ValidationError
from django.db import DataError

from generation.admin.theme import STYLES, ChangeList, ModelAdmin
from generation.log_search.walk import CutOff, limited

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.db.models.expressions import Combinable
    from django.http import HttpRequest

# A filter without an index may have to read the whole table to fill one page.
TIME_LIMIT_S = 2.5


class TooLong(Exception):  # a state, not a fault
    """A query was cut off. Its text says what to do."""


class NewestFirst(ChangeList):
    """Keyset pagination by descending primary key.

    Django's own pagination counts the whole table, and reads all rows before a page to reach it.
    Here the address names the row next to the page: `?p=before:<key>` or `?p=after:<key>`.
    """

    newest_url: str | None = None
    newer_url: str | None = None
    older_url: str | None = None

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        try:
            rows, has_newer, has_older = self._read_page(*take_position(request))
        except (ValidationError, ValueError, DataError) as error:
            raise IncorrectLookupParameters from error
        except TooLong as error:
            rows, has_newer, has_older = [], False, False
            messages.warning(request, str(error))
        if has_newer:
            self.newest_url = self.get_query_string()
            self.newer_url = self.get_query_string({PAGE_VAR: f"after:{rows[0].pk}"})
        if has_older:
            self.older_url = self.get_query_string({PAGE_VAR: f"before:{rows[-1].pk}"})
        self.show_page(rows)

    def show_page(self, rows: list[Any]) -> None:
        self.result_list = rows
        self.result_count = self.full_result_count = len(rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = self.multi_page = False

    def _read_page(self, side: str, key: str) -> tuple[list[Any], bool, bool]:
        """Returns the rows, and whether there are newer and older ones."""
        size = self.list_per_page
        if side == "after":
            rows = fetch(self.queryset.filter(pk__gt=key).order_by("pk")[: size + 1])
            if len(rows) > size:
                return rows[size - 1 :: -1], True, True
            # The newer rows all fit on the first page.
        if side == "before":
            rows = fetch(self.queryset.filter(pk__lt=key)[: size + 1])
            if rows:
                return rows[:size], True, len(rows) > size
        rows = fetch(self.queryset[: size + 1])
        return rows[:size], False, len(rows) > size


def fetch(queryset: QuerySet[Any]) -> list[Any]:
    """Returns the rows. Raises `TooLong` where the database takes longer than the limit."""
    try:
        with limited(queryset.db, TIME_LIMIT_S):
            return list(queryset)
    except CutOff as error:
        raise TooLong(
            f"The database did not find the rows within {TIME_LIMIT_S:g} s."
            " Narrow the list by date or by user, or use fewer filters."
        ) from error


def take_position(request: HttpRequest) -> tuple[str, str]:
    """Returns the side and the key that the address names, and removes them from the request.

    Unfold's filter form copies every parameter of `request.GET` into a hidden field and has no
    option to leave one out; but a position in this list means nothing under other filters.
    """
    side, _, key = request.GET.get(PAGE_VAR, "").partition(":")
    others = request.GET.copy()
    others.pop(PAGE_VAR, None)
    request.GET = others  # type: ignore[assignment]  # a mutable QueryDict is one
    return side, key


class NewestFirstAdmin(ModelAdmin):
    """The base of our pages."""

    changelist: type[NewestFirst] = NewestFirst
    sortable_by = ()
    show_full_result_count = False

    class Media:
        css: ClassVar = {"all": STYLES}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return self.changelist
