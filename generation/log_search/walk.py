"""A search through the log in bounded statements, which ends with its budget of time.

It reads the log's parts from the newest or from a place, and says how far it came.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import OperationalError, connections, transaction

from generation.log_search.guide import Range, shifted
from generation.log_search.places import AllTaken, places
from generation.partitions.intervals import moment_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from generation.log_search.guide import Guide
    from generation.log_search.sought import Sought

# Of a search in all, from when it is known what is sought: its page is there within 2.5 s.
BUDGET_S = 2.2
# Of a page that takes no place among the long searches.
QUICK_S = 0.2
# Of one statement: it is cut off then, and a smaller part is tried.
STATEMENT_S, LEAST_S = 0.5, 0.05
# The limit on a statement is set again once the search has this share of it left.
SHORTER = 0.75
# What a statement should take: parts grow and shrink so that they take about so long.
TARGET_S = 0.08
FIRST_EFFORT = timedelta(minutes=30)
LEAST_EFFORT = timedelta(milliseconds=50)
TICK = timedelta(milliseconds=1)  # ids know no less
MOST_EFFORT = timedelta(days=60)
GROWTH = 4
QUERY_CANCELED = "57014"


class CutOff(Exception):  # a state, not a fault
    """PostgreSQL ended a statement at its time limit."""


@dataclass(slots=True)
class Found:
    """What a search has found, in its order."""

    rows: list[Any] = field(default_factory=list)
    edge: UUID | None = None  # up to which it came; None: it has all that was asked for
    is_refused: bool = False  # it ended early, since other searches are under way


class Walk:
    """One search, newest first or oldest first, for so many rows of a guide's parts."""

    def __init__(self, sought: Sought, guide: Guide, *, newest_first: bool) -> None:
        self._sought = sought
        self._guide = guide
        self._newest_first = newest_first
        self._effort = FIRST_EFFORT
        self._ends = 0.0  # by the clock
        # Parts to read, each with how far the log is searched with it.
        self._parts: deque[tuple[Range, UUID]] = deque()
        self._reading: list[tuple[Range, UUID]] = []

    def run(self, count: int, *, edge: UUID) -> Found:
        """Returns the first `count` rows from `edge` on, or those that it found in time."""
        quickly = time.monotonic() + min(QUICK_S, BUDGET_S)
        # Something is read in any case, or *Continue* would lead to the same place.
        self._ends = max(self._sought.began + BUDGET_S, quickly)
        found = Found(edge=edge)
        with contextlib.ExitStack() as place:
            try:
                is_done = self._read_until(quickly, count, found)
                if not is_done:
                    place.enter_context(places.taken())
                    is_done = self._read_until(self._ends, count, found)
            except AllTaken:
                found.is_refused, is_done = True, False
        if is_done:
            found.edge = None
        return found

    def _read_until(self, until: float, count: int, found: Found) -> bool:
        """Returns whether all was found, or nothing is left to be read."""
        while True:
            limit_s = max(min(STATEMENT_S, self._ends - time.monotonic()), LEAST_S)
            try:
                with limited(self._sought.alias, limit_s):
                    while (missing := count - len(found.rows)) > 0:
                        now = time.monotonic()
                        if now >= until:
                            return False
                        if self._ends - now < SHORTER * limit_s and limit_s > LEAST_S:
                            break  # so that the last statements end with the search
                        if not (self._parts or self._fetch(missing)):
                            return True
                        self._read(missing, found)
                    else:
                        return True
            except CutOff:
                again = [(Range(part.start, part.end), edge) for part, edge in self._reading]
                self._parts.extendleft(reversed(again))
                self._effort = max(self._effort / GROWTH**2, LEAST_EFFORT)

    def _fetch(self, missing: int) -> bool:
        """Ask the guide for more parts. Returns whether there are any."""
        ranges, edge = self._guide.take(self._effort, missing)
        edges = [each.start if self._newest_first else each.end for each in ranges[:-1]]
        self._parts.extend(zip(ranges, [*edges, edge], strict=True) if ranges else ())
        return bool(ranges)

    def _read(self, missing: int, found: Found) -> None:
        """Read what takes about `TARGET_S`. Raises `CutOff`."""
        self._reading = self._next()
        began = time.monotonic()
        ranges = [part for part, _ in self._reading]
        found.rows += self._sought.read(ranges, missing, newest_first=self._newest_first)
        found.edge = self._reading[-1][1]
        self._reading = []  # or the guide's own statement, if cut off, would have them read again
        by = TARGET_S / max(time.monotonic() - began, 0.001)
        if by > 1 and sum(map(_length, ranges), timedelta(0)) < self._effort / 2:
            return  # it was quick, since little was left of the guide's parts
        grown = self._effort * min(max(by, 1 / GROWTH), GROWTH)
        self._effort = min(max(grown, LEAST_EFFORT), MOST_EFFORT)

    def _next(self) -> list[tuple[Range, UUID]]:
        """Returns the parts that make one statement; the rest of them waits."""
        parts: list[tuple[Range, UUID]] = []
        left = self._effort
        while self._parts and (left > timedelta(0) or not parts):
            part, edge = self._parts.popleft()
            first, rest = self._split(part, left)
            if rest is None:
                parts.append((part, edge))
            else:
                parts.append((first, first.start if self._newest_first else first.end))
                self._parts.appendleft((rest, edge))
            left -= _length(first)
        return parts

    def _split(self, part: Range, at: timedelta) -> tuple[Range, Range | None]:
        """Returns the part's beginning, in the search's direction, and its rest if there is any."""
        at = max(at, TICK)  # or its beginning would be empty, again and again
        if part.is_indexed or _length(part) <= at + TICK:
            return part, None
        if self._newest_first:
            middle = max(part.start, shifted(part.end, -at))
            return Range(middle, part.end), Range(part.start, middle)
        middle = min(part.end, shifted(part.start, at))
        return Range(part.start, middle), Range(middle, part.end)


@contextlib.contextmanager
def limited(alias: str, limit_s: float) -> Iterator[None]:
    """Give each statement of the block so long. Raises `CutOff`."""
    try:
        with transaction.atomic(alias):
            with connections[alias].cursor() as cursor:
                # JIT and parallel workers take longer to begin than a statement may take.
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true),"
                    " set_config('max_parallel_workers_per_gather', '0', true),"
                    " set_config('jit', 'off', true)",
                    [str(max(1, round(limit_s * 1000)))],
                )
            yield
    except OperationalError as error:
        if not is_cut_off(error):
            raise
        raise CutOff from error


def is_cut_off(error: Exception) -> bool:
    """Whether PostgreSQL ended the statement for its `statement_timeout`, by either driver."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state == QUERY_CANCELED


def _length(part: Range) -> timedelta:
    return moment_of(part.end) - moment_of(part.start)
