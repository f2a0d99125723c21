"""The admin's list of a table that is too large to count, to skip through, or to scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import ValidationError
from django.db import DataError, OperationalError, connections, transaction
from psycopg.errors import QueryCanceled

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.db.models.expressions import Combinable
    from django.http import HttpRequest
else:
    from unfold.views import ChangeList

# A filter on what no index serves may have to read the whole table to fill one page.
TIME_LIMIT_MS = 5000


class NewestFirst(ChangeList):
    """Pages by descending primary key, each found through its index.

    Django's own pages count the whole table, and reach a page by reading all before it. Here
    a page is named by the row it lies next to: `?p=before:<key>` or `?p=after:<key>`.
    """

    newest_url: str | None = None
    newer_url: str | None = None
    older_url: str | None = None

    def get_ordering(
        self,
        request: HttpRequest,  # noqa: ARG002
        queryset: QuerySet[Any],  # noqa: ARG002
    ) -> list[str | Combinable]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        try:
            rows, has_newer, has_older = self._page(*self._place(request))
        except (ValidationError, ValueError, DataError) as error:
            raise IncorrectLookupParameters from error
        except OperationalError as error:
            if not isinstance(error.__cause__, QueryCanceled):
                raise
            rows, has_newer, has_older = [], False, False
            messages.warning(
                request,
                f"The database found no page of rows within {TIME_LIMIT_MS / 1000:g} s."
                " Narrow the list: by date, by user, or with fewer filters.",
            )
        if has_newer:
            self.newest_url = self.get_query_string()
            self.newer_url = self.get_query_string({PAGE_VAR: f"after:{rows[0].pk}"})
        if has_older:
            self.older_url = self.get_query_string({PAGE_VAR: f"before:{rows[-1].pk}"})
        self.result_list = rows
        self.result_count = self.full_result_count = len(rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = self.multi_page = False

    def _place(self, request: HttpRequest) -> tuple[str, str]:
        side, _, key = request.GET.get(PAGE_VAR, "").partition(":")
        # Unfold's filter form repeats every parameter of the request, and a place in this list
        # means nothing in a list filtered otherwise.
        rest = request.GET.copy()
        rest.pop(PAGE_VAR, None)
        request.GET = rest  # type: ignore[assignment]  # a mutable one
        return side, key

    def _page(self, side: str, key: str) -> tuple[list[Any], bool, bool]:
        """The rows, and whether there are newer and older ones."""
        size = self.list_per_page
        if side == "after":
            rows = self._fetch(self.queryset.filter(pk__gt=key).order_by("pk")[: size + 1])
            if len(rows) > size:
                return rows[size - 1 :: -1], True, True
            # All that is newer fits on the first page.
        if side == "before":
            rows = self._fetch(self.queryset.filter(pk__lt=key)[: size + 1])
            if rows:
                return rows[:size], True, len(rows) > size
        rows = self._fetch(self.queryset[: size + 1])
        return rows[:size], False, len(rows) > size

    def _fetch(self, queryset: QuerySet[Any]) -> list[Any]:
        alias = queryset.db
        with transaction.atomic(alias):
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true)", [str(TIME_LIMIT_MS)]
                )
            return list(queryset)
