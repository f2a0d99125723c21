"""Which generations the list's filter finds, and the way through all of them.

No statement lasts: the way goes by the ids, window by window, so that no transaction keeps
PostgreSQL from removing dead rows meanwhile. What is stored while it goes on may be found or not.
"""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest, QueryDict

from generation.admin.pagination import NewestFirst, TooLong, fetch
from generation.models import GenerationLog
from generation.partitions.intervals import (
    LAST_ID,
    WEEK,
    ZERO_ID,
    first_id,
    interval_at,
    moment_of,
)

if TYPE_CHECKING:
    from django.db.models import QuerySet

PORTION = 10_000  # generations, each with one entry in the record of accesses
BUDGET_S = 2.0  # after which a portion ends with what was found
QUICK_S = 0.5
NARROWEST = timedelta(seconds=10)


class BadSelection(ValueError):
    """The filter is none of the list's. Its text says what is wrong."""


def select(query: str, user: Any = None) -> QuerySet[GenerationLog]:
    """Returns what the list would show on all its pages. `query` is what follows the ? in its
    address; without a user, it is a command's.

    Raises `BadSelection`, also for a value that the list ignores with a warning: an export would
    have too much in it.
    """
    warnings: list[str] = []
    request: Any = HttpRequest()
    request.method = "GET"
    request.GET = QueryDict(query)
    request.user = user or _Command()
    request._messages = _Warnings(warnings)  # noqa: SLF001  # where Django's messages look
    listed: Any = copy.copy(admin.site.get_model_admin(GenerationLog))
    listed.changelist = _Unread
    try:
        found: QuerySet[GenerationLog] = listed.get_changelist_instance(request).queryset
    except (IncorrectLookupParameters, DisallowedModelAdminLookup):
        raise BadSelection("The address has a filter that is not one of the list's.") from None
    if warnings:
        raise BadSelection(warnings[0])
    return found.prefetch_related(None).order_by()


class _Unread(NewestFirst):
    def get_results(self, request: HttpRequest) -> None:  # noqa: ARG002  # Django's hook
        """Reads no page."""
        self.result_list = []
        self.result_count = self.full_result_count = 0
        self.show_full_result_count = self.show_admin_actions = False
        self.can_show_all = self.multi_page = False


class _Warnings:
    """Takes the place of Django's message storage."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def add(self, _level: int, message: Any, _extra_tags: str = "") -> None:
        self._texts.append(str(message))


class _Command:
    """Whoever may run commands has the database."""

    is_active = is_staff = is_authenticated = True
    pk = None

    def has_perm(self, *_args: object) -> bool:
        return True

    has_perms = has_module_perms = has_perm


class Walk:
    """The ids of a selection, ascending."""

    def __init__(
        self, selected: QuerySet[GenerationLog], *, after: UUID | None = None, until: UUID
    ) -> None:
        """`after` is the last id that somebody has already; `until` the first that is too new."""
        self._selected = selected.order_by("pk")
        self._until = until
        self._width = WEEK
        self.alias = selected.db
        self.position = after or ZERO_ID  # all ids up to it are behind us
        self._has_begun = False

    def portion(self) -> list[UUID] | None:
        """Returns the next `PORTION` ids at most, and none of them after a while of searching; None
        at the end. Raises `TooLong`, and Django's errors of the database."""
        if not self._has_begun:
            self._has_begun = True
            self.position = max(self.position, self._before_the_oldest())
        found: list[UUID] = []
        deadline = time.monotonic() + BUDGET_S
        while len(found) < PORTION and time.monotonic() < deadline:
            if self.position.int + 1 >= self._until.int:
                return found or None
            found += self._next(PORTION - len(found))
        return found

    def _next(self, most: int) -> list[UUID]:
        end = self._window_end()
        began = time.monotonic()
        window = self._selected.filter(pk__gt=self.position, pk__lt=end)
        try:
            keys: list[UUID] = fetch(window.values_list("pk", flat=True)[:most])
        except TooLong:
            if self._width <= NARROWEST:
                raise
            self._width /= 8
            return []
        if time.monotonic() - began < QUICK_S:
            self._width = min(self._width * 2, WEEK)
        self.position = keys[-1] if len(keys) == most else UUID(int=end.int - 1)
        return keys

    def _window_end(self) -> UUID:
        """Not beyond the week's partition."""
        moment = moment_of(UUID(int=self.position.int + 1))
        if moment.year > 9000:  # a clock that was wrong: there is no next week
            return self._until
        end = min(first_id(moment + self._width), interval_at(moment, WEEK).end_id)
        return min(end, self._until)

    def _before_the_oldest(self) -> UUID:
        oldest = GenerationLog.objects.using(self.alias).order_by("pk").values_list("pk", flat=True)
        found: list[UUID] = fetch(oldest[:1])
        return UUID(int=found[0].int - 1) if found else LAST_ID


def now_id() -> UUID:
    """Returns the first id that is too new for an export that begins now."""
    return first_id(datetime.now(UTC))
