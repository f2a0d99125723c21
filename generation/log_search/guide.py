"""Which parts of the log can hold the rows that are asked for.

The rollups say in which five minutes a model, an error, a stop reason or a slow request occurred
at all (`buckets`). So a search for something rare reads those minutes, and nothing of the weeks
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from django.utils.timezone import now

from generation import conf
from generation.log_search.buckets import GUIDED, LENGTH, Buckets
from generation.log_search.selection import CLOCK_STEP, until_id
from generation.models import Maintenance
from generation.partitions.intervals import DAY, ZERO_ID, first_id, interval_at, moment_of
from generation.partitions.words import SETTLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.log_search.buckets import Bucket
    from generation.log_search.selection import Selection

ROLLUPS = "rollups"  # the task of `rollups/upkeep.py`
# Rollups of this length are kept for 190 days; `rollups/upkeep.py` drops them.
KEPT = timedelta(days=180)
# Rows that are newer than the rollups' watermark by less than this may not be in them.
IN_FLIGHT = timedelta(minutes=10)
# Buckets that are given at once, at first and at most.
FIRST, MOST = 12, 300


@dataclass(frozen=True, slots=True)
class Range:
    """The ids from one until just before another."""

    start: UUID
    end: UUID
    is_indexed: bool = False  # read at once: in a smaller part, PostgreSQL would not use the index


class Guide(Protocol):
    """Gives the log's parts in the direction of the search, each once."""

    def take(self, effort: timedelta, wanted: int) -> tuple[Sequence[Range], UUID]:
        """Returns the next ranges, in their order, and how far the log is searched with them.

        About `wanted` rows are expected in them, and one that has to be read to find out is
        `effort` long at most. None are left if the end of `bounds` is reached.
        """
        ...


class EveryRow:
    """All of the log between two ids, in parts of a given length of time."""

    def __init__(self, bounds: Range, *, newest_first: bool) -> None:
        self.rest = bounds
        self._newest_first = newest_first

    def take(self, effort: timedelta, wanted: int) -> tuple[Sequence[Range], UUID]:  # noqa: ARG002  # nothing is known of the rows
        bounds = self.rest
        if bounds.start >= bounds.end:
            return [], bounds.start if self._newest_first else bounds.end
        if self._newest_first:
            start = max(bounds.start, shifted(bounds.end, -effort))
            part, self.rest = Range(start, bounds.end), Range(bounds.start, start)
            return [part], start
        end = min(bounds.end, shifted(bounds.start, effort))
        part, self.rest = Range(bounds.start, end), Range(end, bounds.end)
        return [part], end


class IndexedDays(EveryRow):
    """The same, with each day at once whose words have an index; but first a short part without
    it, which has enough of a word that is frequent."""

    _has_begun = False

    def take(self, effort: timedelta, wanted: int) -> tuple[Sequence[Range], UUID]:
        bounds = self.rest
        if not self._has_begun:
            self._has_begun = True
            return super().take(effort, wanted)
        last = UUID(int=max(bounds.end.int - 1, 0))
        day = interval_at(moment_of(last if self._newest_first else bounds.start), DAY)
        if bounds.start >= bounds.end or day.ends_at + SETTLED > now():
            return super().take(effort, wanted)
        start, end = max(bounds.start, day.first_id), min(bounds.end, day.end_id)
        if self._newest_first:
            self.rest, edge = Range(bounds.start, start), start
        else:
            self.rest, edge = Range(end, bounds.end), end
        return [Range(start, end, is_indexed=True)], edge


class OnlyWhere:
    """The log's parts whose rollups have such rows, and those that have no rollups."""

    def __init__(
        self, alias: str, asked: Selection, bounds: Range, rolled: Range, *, newest_first: bool
    ) -> None:
        """`rolled`: the ids whose rollups are known to be complete."""
        self._newest_first = newest_first
        self._until_id = until_id()
        self._count = FIRST
        self._taken: list[Bucket] = []  # kept here, since a statement for more may be cut off
        # Three stretches: what is newer than the rollups, what has them, what is older.
        newer = Range(max(bounds.start, rolled.end), bounds.end)
        known = Range(max(bounds.start, rolled.start), min(bounds.end, rolled.end))
        older = Range(bounds.start, min(bounds.end, rolled.start))
        stretches = [(newer, False), (known, True), (older, False)]
        self._stretches = [
            (stretch, is_known)
            for stretch, is_known in (stretches if newest_first else reversed(stretches))
            if stretch.start < stretch.end
        ]
        self._buckets = Buckets(  # of any request that has an id in `known`
            alias,
            asked,
            moment_of(known.start) - LENGTH - self._until_id,
            moment_of(known.end) + CLOCK_STEP,
            newest_first=newest_first,
        )
        self._at_end = bounds.start if newest_first else bounds.end
        self._every: EveryRow | None = None

    def take(self, effort: timedelta, wanted: int) -> tuple[Sequence[Range], UUID]:
        while self._stretches:
            stretch, is_known = self._stretches[0]
            if is_known:
                ranges, rest = self._known(stretch, wanted)
                edge = rest.end if self._newest_first else rest.start
            else:
                self._every = self._every or EveryRow(stretch, newest_first=self._newest_first)
                ranges, edge = self._every.take(effort, wanted)
                rest = self._every.rest
            if rest.start < rest.end:
                self._stretches[0] = (rest, is_known)
            else:
                self._stretches.pop(0)
                self._every = None
            if ranges:
                return ranges, edge
        return [], self._at_end

    def _known(self, stretch: Range, wanted: int) -> tuple[Sequence[Range], Range]:
        """Returns ranges of a stretch, and what is left of it."""
        rows = sum(bucket.rows for bucket in self._taken)
        is_end = False
        while rows < wanted and len(self._taken) < self._count and not is_end:
            bucket = self._buckets.next()
            if bucket is None:
                is_end = True
            else:
                self._taken.append(bucket)
                rows += bucket.rows
        ranges = merged([_clip(self._span_of(bucket), stretch) for bucket in self._taken])
        self._taken = []
        self._count = min(4 * self._count, MOST)
        if is_end:
            end = stretch.start if self._newest_first else stretch.end
            return ranges, Range(end, end)
        if self._newest_first:
            return ranges, Range(stretch.start, ranges[-1].start if ranges else stretch.end)
        return ranges, Range(ranges[-1].end if ranges else stretch.start, stretch.end)

    def _span_of(self, bucket: Bucket) -> Range:
        """Returns the ids that such requests of five minutes may have."""
        return Range(
            first_id(bucket.first_at - CLOCK_STEP),
            first_id(bucket.last_at + self._until_id),
        )


def merged(ranges: Sequence[Range]) -> list[Range]:
    """Returns ranges, which are in the order of the search, with those that overlap as one."""
    result: list[Range] = []
    for each in ranges:
        if each.start >= each.end:
            continue
        last = result[-1] if result else None
        if last and each.start <= last.end and last.start <= each.end:
            result[-1] = Range(min(each.start, last.start), max(each.end, last.end))
        else:
            result.append(each)
    return result


def _clip(span: Range, bounds: Range) -> Range:
    return Range(max(span.start, bounds.start), min(span.end, bounds.end))


def shifted(key: UUID, by: timedelta) -> UUID:
    """Returns the first id of the moment that is so much later than that of an id."""
    ms = (key.int >> 80) + by // timedelta(milliseconds=1)
    return UUID(int=min(max(0, ms), (1 << 48) - 1) << 80)


def rolled() -> Range:
    """Returns the ids whose rollups are complete; an empty range if there are none."""
    progress = Maintenance.objects.filter(task=ROLLUPS).values("watermark", "back_to").first()
    if not progress or not progress["watermark"] or not progress["back_to"]:
        return Range(ZERO_ID, ZERO_ID)
    watermark, since = progress["watermark"], progress["back_to"]
    since = max(since, watermark - KEPT)
    return Range(first_id(since + until_id()), first_id(max(since, watermark - IN_FLIGHT)))


def guide(alias: str, asked: Selection, bounds: Range, *, newest_first: bool) -> Guide:
    """Returns the guide for a search between two ids."""
    if asked.names & GUIDED:
        return OnlyWhere(alias, asked, bounds, rolled(), newest_first=newest_first)
    if asked.words and conf.load().search == "words":
        return IndexedDays(bounds, newest_first=newest_first)
    return EveryRow(bounds, newest_first=newest_first)
