"""Where the marks of an axis are, and what they say. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

Write = Callable[[float], str]  # how a value is shown

STEPS = (1, 2, 5)
MOST_STEPS = 5  # between 0 and the top
MOST_TIMES = 8
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_TIME_STEPS = (
    *(minutes * _MINUTE for minutes in (5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 7, 14, 28)),
)


@dataclass(frozen=True, slots=True)
class Mark:
    at: float  # in per cent of the axis
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """What runs from left to right."""

    start: float
    end: float
    marks: tuple[Mark, ...]
    write: Write  # names a place on it, in the table of numbers
    title: str

    def share(self, value: float) -> float:
        """Returns where a value lies, from 0 to 1."""
        return min(max((value - self.start) / (self.end - self.start), 0.0), 1.0)


def round_values(top: float) -> list[float]:
    """Returns three to six round values from 0 to `top` or just above."""
    step = next(step for step in _round_steps() if top / step <= MOST_STEPS)
    values = [0.0]
    while values[-1] < top:
        values.append(round(len(values) * step, 9))
    return values


def _round_steps() -> Iterator[float]:
    for power in count(-6):
        for step in STEPS:
            yield step * 10.0**power


def seconds_axis(end: float) -> Axis:
    """Returns the seconds from 0 to `end`."""
    marks = [value for value in round_values(end) if value <= end]
    return Axis(
        0.0,
        end,
        tuple(Mark(100 * value / end, f"{value:g} s") for value in marks),
        lambda value: f"{value:.1f} s",
        "Time",
    )


def time_axis(since: datetime, until: datetime, zone: tzinfo) -> Axis:
    """Returns the time between two moments, with marks at round hours or days of a time zone.

    Values on it are Unix times, in seconds.
    """
    start, end = since.timestamp(), until.timestamp()
    length = end - start
    step = next((step for step in _TIME_STEPS if length / step <= MOST_TIMES), _TIME_STEPS[-1])
    is_daily = step >= _DAY
    marks = []
    for local in _round_moments(since.astimezone(zone), end, step):
        is_day = is_daily or (local.hour, local.minute) == (0, 0)
        label = f"{local.day} {local:%b}" if is_day else f"{local:%H:%M}"
        marks.append(Mark(100 * (local.timestamp() - start) / length, label))

    def write(value: float) -> str:
        return f"{datetime.fromtimestamp(value, zone):%Y-%m-%d %H:%M}"

    title = f"From ({until.astimezone(zone):%Z})"
    return Axis(start, end, tuple(marks), write, title)


def _round_moments(since: datetime, end: float, step: int) -> Iterator[datetime]:
    """Yields the moments that are whole steps from a midnight, in the time zone of `since`.

    By the clock on the wall: where it is set forward or back, a step is longer or shorter.
    """
    zone = since.tzinfo
    days = timedelta(days=step // _DAY)
    day = since.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if days:
        day -= timedelta(days=day.toordinal() % days.days)
    for number in count():
        local = (day + number * timedelta(seconds=step)).replace(tzinfo=zone)
        if local.timestamp() > end:
            return
        if local.timestamp() >= since.timestamp():
            yield local
