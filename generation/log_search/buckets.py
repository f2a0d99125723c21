"""The five minutes in which the rollups have any row that is asked for.

Rollups of six hours lead to those of an hour, and these to those of five minutes: of what is rare,
few rollups are read, and where there is none in half a year, those of six hours alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections

from generation.log_search.selection import FLAGS, NO_HTTP_STATUS
from generation.rollups.buckets import MINUTE, ROLLUP_LENGTHS
from generation.rollups.histogram import step_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from generation.log_search.selection import Selection

LENGTH = ROLLUP_LENGTHS[0] * MINUTE
DIMENSIONS = ("provider", "model", "status", "error_type")
# With any of these, the rollups say more than that the service was used.
GUIDED = {
    *("provider", "model", "error_type", "http_status", "stop_reason"),
    *("cost_min", "latency_min", "tokens_min", *FLAGS),
}
FEW, SPARSE = 40, 4  # of so many buckets, one in four
LOOKED_AT = timedelta(days=30)

# Each gives its bucket, once for all rows of the bucket that can have such requests.
_LEVEL = """
    SELECT {columns} FROM generation_rollup
    WHERE minutes = {minutes} AND {span} AND {conditions}
    GROUP BY bucket ORDER BY bucket {way} LIMIT {count}"""

_WITHIN = """
    SELECT of_shorter.* FROM ({}) AS of_longer CROSS JOIN LATERAL ({}) AS of_shorter
    ORDER BY of_shorter.bucket {} LIMIT {}"""


@dataclass(frozen=True, slots=True)
class Bucket:
    start: datetime
    rows: int  # that match, at least; 0: not known, but that there can be some
    first_at: datetime  # when the first of the requests arrived
    last_at: datetime


class Buckets:
    """Those of one search, from the newest or from the oldest on."""

    def __init__(self, alias: str, asked: Selection, *, newest_first: bool) -> None:
        self._alias = alias
        self._conditions, self._parameters = _known_of(asked)
        is_all = asked.names <= {*DIMENSIONS, "http_status", "since", "until"}
        self._rows = "sum(requests)::bigint" if is_all else "0"
        self._way = "DESC" if newest_first else "ASC"

    def read(self, since: datetime, until: datetime, count: int) -> list[Bucket]:
        """Returns the first `count` that begin after one moment and before another."""
        with connections[self._alias].cursor() as cursor:
            cursor.execute(self._statement(count), [*self._parameters_of(since, until)])
            return [Bucket(*row) for row in cursor.fetchall()]

    def _statement(self, count: int) -> str:
        sql, longer = "", 0
        columns = "bucket"
        for minutes in reversed(ROLLUP_LENGTHS):
            span = "bucket > %s AND bucket < %s"
            if longer:
                span += (
                    " AND bucket >= of_longer.bucket"
                    f" AND bucket < of_longer.bucket + interval '{longer} minutes'"
                )
            if minutes == ROLLUP_LENGTHS[0]:
                columns = f"bucket, {self._rows}, min(first_at), max(last_at)"
            level = _LEVEL.format(
                columns=columns, minutes=minutes, span=span, way=self._way, count=count,
                conditions=self._conditions,
            )  # fmt: skip
            sql = _WITHIN.format(sql, level, self._way, count) if sql else level
            longer = minutes
        return sql

    def _parameters_of(self, since: datetime, until: datetime) -> Iterator[Any]:
        for minutes in reversed(ROLLUP_LENGTHS):
            yield since - minutes * MINUTE + LENGTH
            yield until
            yield from self._parameters


def _known_of(asked: Selection) -> tuple[str, list[Any]]:
    """Returns the condition for rollups that can have such requests, and its parameters."""
    parts = [f"{name} = %s" for name in DIMENSIONS if getattr(asked, name)]
    parameters = [getattr(asked, name) for name in DIMENSIONS if getattr(asked, name)]
    if (http_status := http_status_of(asked)) is not None:
        parts.append("http_status = %s")
        parameters.append(http_status)
    if asked.latency_min:
        parts.append("latency_steps[cardinality(latency_steps)] >= %s")
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
    latest = Buckets(alias, asked, newest_first=True).read(until - LOOKED_AT, until, FEW)
    return len(latest) < FEW or latest[0].start - latest[-1].start > SPARSE * FEW * LENGTH
