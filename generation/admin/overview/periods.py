"""The times that the pages offer, and the buckets that make up one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from generation.rollups.buckets import MINUTE, Span, ceiling, floor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

HOUR_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Period:
    """A time that ends now."""

    name: str  # in an address
    title: str
    length: timedelta
    minutes: int  # of the rollups that are read
    step: int  # minutes that a point of a plot stands for


PERIODS = (
    Period("1h", "1 hour", timedelta(hours=1), 5, 5),
    Period("6h", "6 hours", timedelta(hours=6), 5, 5),
    Period("24h", "24 hours", timedelta(hours=24), 5, 15),
    Period("7d", "7 days", timedelta(days=7), 60, 120),
    Period("30d", "30 days", timedelta(days=30), 360, 360),
    Period("90d", "90 days", timedelta(days=90), 360, 1440),
)
DAY = PERIODS[2]


def named(name: str) -> Period:
    """Returns the period of that name; a day, if there is none."""
    return next((period for period in PERIODS if period.name == name), DAY)


@dataclass(frozen=True, slots=True)
class Window:
    """A period and the one before it, in whole buckets.

    The newest bucket is not over, so it has no counterpart before: changes compare `whole`, the
    part of the period that is over, with `before`, which is as long.
    """

    span: Span
    whole: Span
    before: Span

    @property
    def partial(self) -> Span:
        return Span(self.whole.until, self.span.until)


def window(period: Period, watermark: datetime) -> Window:
    """Returns a period's buckets up to the watermark; it begins with a whole point of a plot."""
    until = ceiling(watermark, period.step)
    return _window(until - period.length, until, floor(watermark, period.minutes))


def hours_of(found: Window, watermark: datetime) -> Window:
    """Returns the hours that a window touches."""
    since = floor(found.span.since, HOUR_MINUTES)
    return _window(since, ceiling(watermark, HOUR_MINUTES), floor(watermark, HOUR_MINUTES))


def _window(since: datetime, until: datetime, over: datetime) -> Window:
    whole = Span(since, max(over, since))
    return Window(Span(since, until), whole, Span(since - (whole.until - since), since))


def longest_buckets(span: Span, lengths: tuple[int, ...]) -> Iterator[tuple[int, Span]]:
    """Yields the longest buckets of these lengths, in ascending minutes, that make up a span: as
    runs of buckets of a length. The span is one of whole buckets of the shortest."""
    *shorter, longest = lengths
    inner = Span(ceiling(span.since, longest), floor(span.until, longest))
    edges = [span]
    if inner.since < inner.until:
        yield longest, inner
        edges = [Span(span.since, inner.since), Span(inner.until, span.until)]
    if shorter:
        for edge in edges:
            if edge.since < edge.until:
                yield from longest_buckets(edge, tuple(shorter))


def longest_starts(span: Span, lengths: tuple[int, ...]) -> Iterator[tuple[int, datetime]]:
    """Yields the same one by one: the minutes of each and its start."""
    for minutes, run in longest_buckets(span, lengths):
        for number in range((run.until - run.since) // (minutes * MINUTE)):
            yield minutes, run.since + number * minutes * MINUTE
