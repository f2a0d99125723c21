"""A period's sums, series and percentiles, read from the rollups."""

from __future__ import annotations

import contextlib
import json
import operator
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction

from generation import conf
from generation.admin.overview.periods import longest_buckets, window
from generation.rollups.buckets import MINUTE, ROLLUP_LENGTHS
from generation.rollups.histogram import middle_ms
from generation.rollups.upkeep import ROLLUPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from generation.admin.overview.periods import Period, Window

TIME_LIMIT_MS = 5000
SUCCEEDED = "succeeded"
NO_COST = Decimal(0)

Model = tuple[str, str]  # a provider and its model
Series = dict[int, Any]  # by the point's number, from the period's start

# Without JIT and parallel workers, which take longer to begin than such a statement to run. Groups
# are hashed: to sort a quarter's errors by their texts takes a second.
_PROGRESS = """
SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true),
    set_config('enable_sort', 'off', true), watermark, back_to
FROM generation_maintenance WHERE task = %s"""
_PART = """
    SELECT {number}::int AS point, bucket >= %s AS is_partial, provider, model, status, requests,
        priced, unpriced, retried, fell_back, input_tokens, output_tokens, cache_read_tokens,
        cost_usd, latency_steps, latency_counts
    FROM generation_rollup WHERE minutes = %s AND bucket >= %s AND bucket < %s"""
# In place of a point's number: the period before, and all of this one.
_BEFORE, _WHOLE = -1, -2
_NUMBER = "floor(extract(epoch FROM bucket - %s) / %s)"
# `count` is a double, since windows over integers are sums of decimals, which take twice as long.
# Sums of each model and status, of before (without a point), of what is over and of what is not;
# then the points of each line, as JSON, since Django takes ten times as long for rows.
_SUMS = """
WITH source AS MATERIALIZED ({parts}),
histogram AS (
    SELECT coalesce(point, {before}) AS line, unnest(latency_steps) AS step,
        unnest(latency_counts) AS count
    FROM source WHERE status = 'succeeded'
),
counted AS (
    SELECT line, step, sum(count)::float8 AS count FROM histogram GROUP BY line, step
),
lines AS (
    SELECT line, step, count FROM counted
    UNION ALL
    SELECT {whole}, step, sum(count) FROM counted WHERE line >= 0 GROUP BY step
),
ordered AS (
    SELECT line, step, sum(count) OVER (PARTITION BY line ORDER BY step) AS up_to,
        sum(count) OVER (PARTITION BY line) AS of_all
    FROM lines
),
latency AS (
    SELECT line, min(step) FILTER (WHERE up_to > floor(of_all * 0.50)) AS p50,
        min(step) FILTER (WHERE up_to > floor(of_all * 0.95)) AS p95,
        min(step) FILTER (WHERE up_to > floor(of_all * 0.99)) AS p99
    FROM ordered GROUP BY line
),
points AS (
    SELECT point, provider, model, status, sum(requests) AS requests, sum(cost_usd) AS cost,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM source WHERE point IS NOT NULL GROUP BY point, provider, model, status
)
SELECT 'sums', provider, model, status, point IS NULL, is_partial, sum(requests)::bigint,
    sum(priced)::bigint, sum(unpriced)::bigint, sum(retried)::bigint, sum(fell_back)::bigint,
    sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cost_usd), NULL
FROM source GROUP BY provider, model, status, point IS NULL, is_partial
UNION ALL
SELECT 'status', NULL, NULL, status, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, json_agg(json_build_array(point, requests))::text
FROM (SELECT status, point, sum(requests) AS requests FROM points GROUP BY 1, 2) AS by_status
GROUP BY status
UNION ALL
SELECT 'cost', provider, model, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, json_agg(json_build_array(point, cost))::text
FROM (SELECT provider, model, point, sum(cost) AS cost FROM points GROUP BY 1, 2, 3) AS by_model
GROUP BY provider, model
UNION ALL
SELECT 'tokens', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, json_agg(json_build_array(point, input_tokens, output_tokens))::text
FROM (
    SELECT point, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM points GROUP BY 1
) AS by_point
UNION ALL
SELECT 'latency', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, json_agg(json_build_array(line, p50, p95, p99))::text
FROM latency
"""


class Sums(NamedTuple):
    """Of some requests."""

    requests: int = 0
    succeeded: int = 0
    priced: int = 0
    unpriced: int = 0
    retried: int = 0
    fell_back: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cost: Decimal = NO_COST

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def failed(self) -> int:
        return self.requests - self.succeeded

    def plus(self, other: Sums) -> Sums:
        return Sums(*map(operator.add, self, other))


NOTHING = Sums()


class Latency(NamedTuple):
    """Of successes, in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class Compared:
    """Of a period: all of it, what is over, and the period before that."""

    now: Sums = NOTHING
    whole: Sums = NOTHING
    before: Sums = NOTHING


@dataclass(slots=True)
class Figures:
    period: Period
    window: Window
    until: datetime  # up to when rows are in the figures
    is_complete: bool  # whether the rollups go back to the beginning of the period before
    total: Compared = field(default_factory=Compared)
    models: defaultdict[Model, Compared] = field(default_factory=lambda: defaultdict(Compared))
    latency: Latency | None = None
    latency_before: Latency | None = None
    requests_by_status: dict[str, Series] = field(default_factory=dict)
    cost_by_model: dict[Model, Series] = field(default_factory=dict)
    input_tokens: Series = field(default_factory=dict)
    output_tokens: Series = field(default_factory=dict)
    latency_by_point: dict[int, Latency] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """How many points the period has."""
        return (self.window.span.until - self.window.span.since) // (self.period.step * MINUTE)


@contextlib.contextmanager
def reading() -> Iterator[Any]:
    """A transaction in which each statement has a limit of time. Gives a cursor and the progress of
    the rollups: up to when, and back to when; None before they were computed."""
    alias = conf.load().database
    with transaction.atomic(alias), connections[alias].cursor() as cursor:
        cursor.execute(_PROGRESS, [str(TIME_LIMIT_MS), ROLLUPS])
        row = cursor.fetchone()
        yield cursor, row[4:] if row and row[4] else None


def read(cursor: Any, period: Period, progress: tuple[datetime, datetime]) -> Figures:
    """Returns a period's figures, in one statement."""
    watermark, back_to = progress
    found = window(period, watermark)
    figures = Figures(period, found, watermark, is_complete=back_to <= found.before.since)
    span = found.span
    parts = [_PART.format(number=_NUMBER)]
    numbering = [span.since, period.step * MINUTE.total_seconds()]
    parameters = [*numbering, found.whole.until, period.minutes, span.since, span.until]
    lengths = tuple(length for length in ROLLUP_LENGTHS if length >= period.minutes)
    for minutes, run in longest_buckets(found.before, lengths):
        parts.append(_PART.format(number="NULL"))
        parameters += [found.whole.until, minutes, run.since, run.until]
    statement = _SUMS.format(parts=" UNION ALL".join(parts), before=_BEFORE, whole=_WHOLE)
    cursor.execute(statement, parameters)
    for part, provider, model, status, is_before, flag, *sums, series in cursor.fetchall():
        if part == "sums":
            _add(figures.models[provider, model], status, sums, flag=(is_before, flag))
            continue
        points = json.loads(series or "[]")
        if part == "status":
            figures.requests_by_status[status] = dict(points)
        elif part == "cost":
            figures.cost_by_model[provider, model] = dict(points)
        elif part == "tokens":
            figures.input_tokens = {point: tokens for point, tokens, _ in points}
            figures.output_tokens = {point: tokens for point, _, tokens in points}
        else:
            latency = {line: Latency(*map(middle_ms, steps)) for line, *steps in points}
            figures.latency_before = latency.pop(_BEFORE, None)
            figures.latency = latency.pop(_WHOLE, None)
            figures.latency_by_point = latency
    for each in figures.models.values():
        figures.total.now = figures.total.now.plus(each.now)
        figures.total.whole = figures.total.whole.plus(each.whole)
        figures.total.before = figures.total.before.plus(each.before)
    return figures


def _add(model: Compared, status: str, columns: list[Any], flag: tuple[bool, bool]) -> None:
    is_before, is_partial = flag
    requests, *others = columns
    sums = Sums(requests, requests if status == SUCCEEDED else 0, *others)
    if is_before:
        model.before = model.before.plus(sums)
        return
    model.now = model.now.plus(sums)
    if not is_partial:
        model.whole = model.whole.plus(sums)
