"""When a limit's window begins and ends. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

RATES = {"second": 1, "minute": 60, "hour": 3600}  # seconds in which as much refills
BUDGETS = ("day", "week", "month", "ever")
EVER = datetime(1970, 1, 1, tzinfo=UTC)  # the start of what has no windows
_DECEMBER = 12


class Window(NamedTuple):
    start: datetime  # in UTC
    end: datetime | None  # the next one's start; None: it never ends


UNENDING = Window(EVER, None)


def window_at(kind: str, zone: ZoneInfo, moment: datetime) -> Window:
    """Returns the window of a kind that holds a moment. Rates, and requests at once, have one."""
    if kind not in BUDGETS or kind == "ever":
        return UNENDING
    day = moment.astimezone(zone).date()
    if kind == "day":
        first, after = day, day + timedelta(days=1)
    elif kind == "week":
        first = day - timedelta(days=day.weekday())
        after = first + timedelta(weeks=1)
    else:
        first = day.replace(day=1)
        is_last = day.month == _DECEMBER
        after = first.replace(year=day.year + is_last, month=1 if is_last else day.month + 1)
    return Window(_midnight(first, zone), _midnight(after, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day. Where clocks skip midnight, that is the moment of the skip."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
