"""Which week or day a UUIDv7 belongs to. Pure arithmetic, in UTC.

Bounds are UUIDs: the first 48 bits of a UUIDv7 are its Unix time in milliseconds. So neither a
session's time zone nor daylight saving time can move one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY = date(1970, 1, 5)
_MS = timedelta(milliseconds=1)
_TIME_SHIFT = 80  # of the time within a UUIDv7
_LATEST_MS = (1 << 48) - 1
ZERO_ID = UUID(int=0)
LAST_ID = UUID(int=(1 << 128) - 1)

DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """The ids of a partition: from one day at 00:00 UTC until just before another."""

    start: date
    end: date

    @property
    def first_id(self) -> UUID:
        return first_id(_midnight(self.start))

    @property
    def end_id(self) -> UUID:
        """The first id that no longer belongs to it."""
        return first_id(_midnight(self.end))

    @property
    def ends_at(self) -> datetime:
        return _midnight(self.end)


def first_id(moment: datetime) -> UUID:
    """Returns the lower bound of the UUIDv7s made since `moment`."""
    return UUID(int=min(max(0, (moment - _EPOCH) // _MS), _LATEST_MS) << _TIME_SHIFT)


def later(key: UUID, by: timedelta) -> UUID:
    """Returns the id of a time after another's."""
    return UUID(int=min(key.int + (by // _MS << _TIME_SHIFT), LAST_ID.int))


def moment_of(key: UUID) -> datetime:
    """Returns when a UUIDv7 was made; the last moment of all for one after the year 9999."""
    try:
        return _EPOCH + (key.int >> _TIME_SHIFT) * _MS
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def day_number(key: UUID) -> int:
    """Returns the day of a UUIDv7, counted from 1970. Rows of one day share their partitions."""
    return (key.int >> _TIME_SHIFT) // (DAY // _MS)


def interval_at(moment: datetime, every: timedelta) -> Interval:
    """Returns the interval of `every` (whole days) that holds a moment. Weeks begin on Mondays."""
    day = moment.astimezone(UTC).date()
    start = day - (day - _MONDAY) % every
    return Interval(start, start + every)


def intervals(since: datetime, until: datetime, every: timedelta) -> Iterator[Interval]:
    """Yields the interval that holds `since`, and those after it up to the one of `until`."""
    interval = interval_at(since, every)
    while _midnight(interval.start) <= until:
        yield interval
        interval = Interval(interval.end, interval.end + every)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
