"""The five minutes in which the rollups have any row that is asked for.

Rollups of six hours lead to those of an hour, and these to those of five minutes: of what is rare,
few rollups are read, and where there is none in half a year, those of six hours alone.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db import connections

from generation.log_search.selection import FLAGS, NO_HTTP_STATUS
from generation.rollups.buckets import MINUTE, ROLLUP_LENGTHS, floor
from generation.rollups.histogram import step_of

if TYPE_CHECKING:
    from datetime import datetime

    from generation.log_search.selection import Selection

LENGTHS = ROLLUP_LENGTHS[:3]
LENGTH = LENGTHS[0] * MINUTE
DIMENSIONS = ("provider", "model", "status", "error_type")
# With any of these, the rollups say more than that the service was used.
GUIDED = {
    *("provider", "model", "error_type", "http_status", "stop_reason"),
    *("cost_min", "latency_min", "tokens_min", *FLAGS),
}
FEW, SPARSE = 40, 4  # of so many buckets, one in four

# Rollups of six hours that are looked through by a statement, and those that it divides.
AT_ONCE = timedelta(days=30)
DIVIDED, GROWTH = 16, 4

_LONGEST = """
    SELECT DISTINCT bucket FROM generation_rollup
    WHERE minutes = {longest} AND bucket >= %s AND bucket < %s AND {conditions}
    ORDER BY bucket {way}"""
_SHORTEST = """
    SELECT of_minutes.* FROM unnest(%s::timestamptz[]) AS longest (bucket)
    CROSS JOIN LATERAL (
        SELECT DISTINCT bucket FROM generation_rollup AS each
        WHERE minutes = {middle} AND each.bucket >= longest.bucket
            AND each.bucket < longest.bucket + interval '{longest} minutes' AND {conditions}
    ) AS of_hour
    CROSS JOIN LATERAL (
        SELECT bucket, {rows}, min(first_at), max(last_at) FROM generation_rollup AS each
        WHERE minutes = {shortest} AND each.bucket >= of_hour.bucket
            AND each.bucket < of_hour.bucket + interval '{middle} minutes'
            AND each.bucket > %s AND each.bucket < %s AND {conditions}
        GROUP BY bucket
    ) AS of_minutes
    ORDER BY of_minutes.bucket {way}"""


@dataclass(frozen=True, slots=True)
class Bucket:
    start: datetime
    rows: int  # that match, at least; 0: not known, but that there can be some
    first_at: datetime  # when the first of the requests arrived
    last_at: datetime


class Buckets:
    """Those of one search that begin after one moment and before another, in its direction."""

    def __init__(
        self, alias: str, asked: Selection, since: datetime, until: datetime, *, newest_first: bool
    ) -> None:
        self._alias = alias
        self._bounds = since, until
        self._newest_first = newest_first
        self._conditions, self._parameters = _known_of(asked)
        is_all = asked.names <= {*DIMENSIONS, "http_status", "since", "until"}
        shortest, middle, longest = LENGTHS
        self._names = {
            "conditions": self._conditions,
            "rows": "sum(requests)::bigint" if is_all else "0",
            "way": "DESC" if newest_first else "ASC",
            "shortest": shortest,
            "middle": middle,
            "longest": longest,
        }
        # What is not looked through; then the rollups of six hours in what is, not divided yet;
        # then what is found. A statement that is cut off leaves them as they are.
        self._rest = floor(since, longest), max(since, until)
        self._longest: deque[datetime] = deque()
        self._found: deque[Bucket] = deque()
        self._at_once = 1

    def next(self) -> Bucket | None:
        """Returns the next one; None if there are no more."""
        while not self._found:
            if self._longest:
                self._divide()
            elif self._rest[0] < self._rest[1]:
                self._look()
            else:
                return None
        return self._found.popleft()

    def _look(self) -> None:
        since, until = self._rest
        if self._newest_first:
            since = max(since, until - AT_ONCE)
            rest = self._rest[0], since
        else:
            until = min(until, since + AT_ONCE)
            rest = until, self._rest[1]
        rows = self._run(_LONGEST, since, until, *self._parameters)
        self._longest.extend(bucket for (bucket,) in rows)
        self._rest = rest

    def _divide(self) -> None:
        at_once = self._at_once
        self._at_once = max(1, at_once // GROWTH)  # if this statement is cut off
        divided = list(islice(self._longest, at_once))
        rows = self._run(_SHORTEST, divided, *self._parameters, *self._bounds, *self._parameters)
        self._found.extend(Bucket(*row) for row in rows)
        for _ in divided:
            self._longest.popleft()
        self._at_once = min(GROWTH * at_once, DIVIDED)

    def _run(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(sql.format(**self._names), parameters)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found


def _known_of(asked: Selection) -> tuple[str, list[Any]]:
    """Returns the condition for rollups that can have such requests, and its parameters."""
    parts = [f"{name} = %s" for name in DIMENSIONS if getattr(asked, name)]
    parameters = [getattr(asked, name) for name in DIMENSIONS if getattr(asked, name)]
    if (http_status := http_status_of(asked)) is not None:
        parts.append("http_status = %s")
        parameters.append(http_status)
    if asked.latency_min:
        parts.append("highest_latency_step >= %s")
        parameters.append(step_of(math.ceil(asked.latency_min * 1000)))
    parts += [f"{name} > 0" for name in FLAGS if getattr(asked, name)]
    for value, condition in (
        (asked.cost_min, "highest_cost_usd >= %s"),
        (asked.tokens_min, "highest_total_tokens >= %s"),
        (asked.stop_reason, "%s = ANY (stop_reasons)"),
    ):
        if value:
            parts.append(condition)
            parameters.append(value)
    return " AND ".join(parts) or "true", parameters


def http_status_of(asked: Selection) -> int | None:
    """Returns the HTTP status as the rollups have it, 0 for none; None if it may be any."""
    if not asked.http_status:
        return None
    return 0 if asked.http_status == NO_HTTP_STATUS else int(asked.http_status)


def is_sparse(alias: str, asked: Selection, until: datetime) -> bool:
    """Whether the rollups lead to such rows better than an index of a user or a key does."""
    buckets = Buckets(alias, asked, until - AT_ONCE, until, newest_first=True)
    latest = buckets.next()
    last = latest
    for _ in range(FEW - 1):
        last = buckets.next()
    return not latest or not last or latest.start - last.start > SPARSE * FEW * LENGTH
