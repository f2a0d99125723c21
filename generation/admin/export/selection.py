"""Which generations the list's filter finds, and the way through all of them.

No statement lasts: the way goes by the ids, window by window, so that no transaction keeps
PostgreSQL from removing dead rows meanwhile. What is stored while it goes on may be found or not.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.http import QueryDict

from generation.admin.pagination import TooLong, fetch
from generation.log_search.selection import conditions, parse_query, unknown
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

    from generation.log_search.selection import Selection

PORTION = 10_000  # generations, each with one entry in the record of accesses
BUDGET_S = 2.0  # after which a portion ends with what was found
QUICK_S = 0.5
NARROWEST = timedelta(seconds=10)


class BadSelection(ValueError):
    """The filter is none of the list's. Its text says what is wrong."""


def understand(query: str) -> Selection:
    """Returns what the list's address asks for. `query` is what follows the ? in it.

    Raises `BadSelection`, also for a value that the list ignores with a warning.
    """
    asked, faults = parse_query(query)
    if strange := unknown(QueryDict(query)):
        raise BadSelection(f"“{min(strange)[:40]}” is not one of the list's filters.")
    if faults:
        raise BadSelection(faults[0])
    return asked


def select(query: str) -> QuerySet[GenerationLog]:
    """Returns what the list would show on all its pages. Raises `BadSelection`."""
    asked = understand(query)
    if asked.words:
        raise BadSelection("An export can't be narrowed by words in the texts.")
    return GenerationLog.objects.filter(conditions(asked))


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
        self.position = after or ZERO_ID  # all ids up to it are done
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
