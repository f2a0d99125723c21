"""How often each value of a filter occurs, from the rollups: no query reads the log for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from django.db.models import Q, Sum
from django.utils.timezone import localtime, now

from generation.log_search.buckets import LENGTHS, http_status_of
from generation.log_search.guide import rolled
from generation.models import GenerationLog, Rollup
from generation.partitions.intervals import moment_of
from generation.rollups.buckets import ceiling, floor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from generation.log_search.guide import Range
    from generation.log_search.selection import Selection

DIMENSIONS = ("status", "provider", "model", "error_type")
SHORT, _, LONG = LENGTHS
# Of a list without dates.
RECENT = timedelta(days=1)
# Rows of six hours of this time are read in 20 ms.
MOST = timedelta(days=100)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many generations have each value, the most frequent first."""

    by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    is_known: bool = False  # False: the values only, since the list is narrowed by something else
    period: str = ""  # the time that they are counted in, in words
    total: int | None = None  # None: not exactly known


def count(asked: Selection) -> Counts:
    """Returns, for each filter, the counts that its values have beside the other filters."""
    has_dates = bool(asked.names & {"since", "until"})
    until = asked.until or now()
    since = asked.since if has_dates else floor(until - RECENT, LONG)
    if since is None or not timedelta(0) < until - since <= MOST:
        has_dates, until = False, now()
        since = floor(until - RECENT, LONG)
        is_known = False
    else:
        is_known = True
    is_known &= _has_all(rolled(), since)
    is_known &= asked.names <= {*DIMENSIONS, "http_status", "since", "until"}
    http_status = http_status_of(asked)
    status = {} if http_status is None else {"http_status": http_status}
    grouped = (
        Rollup.objects.filter(within(since, until, is_open=asked.until is None), **status)
        .values_list(*DIMENSIONS)
        .annotate(found=Sum("requests"))
    )
    chosen = [getattr(asked, name) for name in DIMENSIONS]
    by: dict[str, Counter[str]] = {name: Counter() for name in DIMENSIONS}
    total = 0
    for *values, requests in grouped:
        others = [
            place
            for place, (value, wanted) in enumerate(zip(values, chosen, strict=True))
            if wanted and value != wanted
        ]
        if not others:
            total += requests
        for place, name in enumerate(DIMENSIONS):
            if values[place] and not set(others) - {place}:
                by[name][values[place]] += requests
    is_exact = is_known and has_dates and _is_whole(since) and _is_whole(asked.until)
    return Counts(
        {name: dict(counts.most_common()) for name, counts in by.items()},
        is_known=is_known,
        period=_words(since, asked.until) if is_known else "",
        total=total if is_exact else None,
    )


def _has_all(covered: Range, since: datetime) -> bool:
    """Whether the rollups have all rows since then: they reach back so far, or to the first row."""
    if covered.start >= covered.end or moment_of(covered.start) <= since:
        return covered.start < covered.end
    keys = GenerationLog.objects.order_by("pk").values_list("pk", flat=True)
    oldest = keys.first()
    return oldest is None or covered.start <= oldest


def within(since: datetime, until: datetime, *, is_open: bool) -> Q:
    """Returns the condition for the rollups of a time: long ones, and at its ends shorter ones.

    `is_open`: it has no end, so the last bucket is that of now.
    """
    parts: list[Q] = []
    start, end = floor(since, SHORT), ceiling(until, LONG if is_open else SHORT)
    for minutes, longer in zip(LENGTHS, (*LENGTHS[1:], None), strict=True):
        first = ceiling(start, longer) if longer else end
        last = floor(end, longer) if longer else end
        if longer and first < last:
            parts += [
                Q(minutes=minutes, bucket__gte=each, bucket__lt=end_of_each)
                for each, end_of_each in ((start, first), (last, end))
                if each < end_of_each
            ]
            start, end = first, last
        else:
            parts.append(Q(minutes=minutes, bucket__gte=start, bucket__lt=end))
            break
    return reduce(or_, parts)


def _is_whole(moment: datetime | None) -> bool:
    """Whether a bucket begins then, so that the rollups are neither more nor less."""
    return moment is None or floor(moment, SHORT) == moment


def _words(since: datetime, until: datetime | None) -> str:
    start = f"{localtime(since):%d %b %H:%M}"
    return f"{start} to {localtime(until):%d %b %H:%M}" if until else f"since {start}"
