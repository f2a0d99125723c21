"""The lengths of buckets, and when each begins. Pure arithmetic, in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday, on which weeks begin
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
# In minutes, up to a week. Those of `Rollup` and `Latency`, of which the first comes from the log
# and each of the others from the one before it; then those of `Spender`, of which the first comes
# from `Spend`.
ROLLUP_LENGTHS = (5, 60, 360, 1440, 10_080)
SPENDER_LENGTHS = ROLLUP_LENGTHS[1:]
SPEND_LENGTH = SPENDER_LENGTHS[0]


@dataclass(frozen=True, slots=True)
class Span:
    """The time from one moment until just before another."""

    since: datetime
    until: datetime

    def widened(self, minutes: int) -> Span:
        """Returns the whole buckets of that length that it touches."""
        return Span(floor(self.since, minutes), ceiling(self.until, minutes))


def floor(moment: datetime, minutes: int) -> datetime:
    """Returns the start of the bucket that holds a moment."""
    return moment - (moment - EPOCH) % (minutes * MINUTE)


def ceiling(moment: datetime, minutes: int) -> datetime:
    """Returns the first start of a bucket that is not before a moment."""
    return moment + (EPOCH - moment) % (minutes * MINUTE)
