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
from generation.admin.overview.periods import window
from generation.admin.overview.runs import POINT, RUNS, parameters
from generation.rollups.buckets import MINUTE
from generation.rollups.histogram import percentiles
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
Histogram = defaultdict[int, int]
SHARES = (0.50, 0.95, 0.99)
ALL_TOGETHER: Model = ("", "")  # in place of a model

# Without JIT and parallel workers, which take longer to begin than such a statement to run. Groups
# are hashed: to sort a quarter's errors by their texts takes a second.
_PROGRESS = """
SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true),
    set_config('enable_sort', 'off', true), watermark, back_to
FROM generation_maintenance WHERE task = %s"""
# Series are JSON, since Django takes ten times as long for rows.
_SUMS = f"""
WITH points AS MATERIALIZED (
    SELECT {POINT} AS point, provider, model, status, requests, cost_usd, input_tokens,
        output_tokens
    {RUNS.format(table="generation_rollup")}
    WHERE part = 'points'
)
SELECT part, provider, model, status, sum(requests)::bigint, sum(priced)::bigint,
    sum(unpriced)::bigint, sum(retried)::bigint, sum(fell_back)::bigint, sum(input_tokens),
    sum(output_tokens), sum(cache_read_tokens), sum(cost_usd), NULL
{RUNS.format(table="generation_rollup")}
WHERE part <> 'points' GROUP BY part, provider, model, status
UNION ALL
SELECT 'status', NULL, NULL, status, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    json_agg(json_build_array(point, requests))::text
FROM (SELECT status, point, sum(requests) AS requests FROM points GROUP BY 1, 2) AS by_status
GROUP BY status
UNION ALL
SELECT 'cost', provider, model, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    json_agg(json_build_array(point, cost))::text
FROM (
    SELECT provider, model, point, sum(cost_usd) AS cost FROM points GROUP BY 1, 2, 3
) AS by_model
GROUP BY provider, model
UNION ALL
SELECT 'tokens', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    json_agg(json_build_array(point, input_tokens, output_tokens))::text
FROM (
    SELECT point, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM points GROUP BY 1
) AS by_point
UNION ALL
SELECT 'latency', provider, model, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    json_agg(json_build_array(part, CASE part WHEN 'points' THEN {POINT} END, steps, counts))::text
{RUNS.format(table="generation_latency")}
WHERE part <> 'points' OR (provider, model) = {ALL_TOGETHER} GROUP BY provider, model
"""  # noqa: S608  # made of our own constants


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

    def minus(self, other: Sums) -> Sums:
        return Sums(*map(operator.sub, self, other))


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
    latency: Latency | None = None  # None: nothing succeeded
    latency_before: Latency | None = None


@dataclass(slots=True)
class Figures:
    period: Period
    window: Window
    until: datetime  # up to when rows are in the figures
    is_complete: bool  # whether the rollups go back to the beginning of the period before
    total: Compared = field(default_factory=Compared)
    models: defaultdict[Model, Compared] = field(default_factory=lambda: defaultdict(Compared))
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
    parts = {"whole": found.whole, "partial": found.partial, "before": found.before}
    cursor.execute(_SUMS, parameters(period, found.span, parts))
    for part, provider, model, status, *sums, series in cursor.fetchall():
        points = json.loads(series or "[]")
        if part == "status":
            figures.requests_by_status[status] = dict(points)
        elif part == "cost":
            figures.cost_by_model[provider, model] = dict(points)
        elif part == "tokens":
            figures.input_tokens = {point: tokens for point, tokens, _ in points}
            figures.output_tokens = {point: tokens for point, _, tokens in points}
        elif part == "latency":
            target = provider, model
            compared = figures.total if target == ALL_TOGETHER else figures.models[target]
            of_points = _add_latencies(compared, points)
            if target == ALL_TOGETHER:
                figures.latency_by_point = of_points
        else:
            _add_sums(figures.models[provider, model], part, status, sums)
    for each in figures.models.values():
        figures.total.now = figures.total.now.plus(each.now)
        figures.total.whole = figures.total.whole.plus(each.whole)
        figures.total.before = figures.total.before.plus(each.before)
    return figures


def _add_sums(model: Compared, part: str, status: str, columns: list[Any]) -> None:
    requests, *others = columns
    sums = Sums(requests, requests if status == SUCCEEDED else 0, *others)
    if part == "before":
        model.before = model.before.plus(sums)
        return
    model.now = model.now.plus(sums)
    if part == "whole":
        model.whole = model.whole.plus(sums)


def _add_latencies(compared: Compared, histograms: list[Any]) -> dict[int, Latency]:
    """Returns those of points. `histograms`: each with its part, point, steps and their counts."""
    now: Histogram = defaultdict(int)
    before: Histogram = defaultdict(int)
    points: defaultdict[int, Histogram] = defaultdict(lambda: defaultdict(int))
    for part, point, steps, counts in histograms:
        histogram = points[point] if part == "points" else before if part == "before" else now
        for step, count in zip(steps, counts, strict=True):
            histogram[step] += count
    compared.latency = Latency(*percentiles(now, SHARES)) if now else None
    compared.latency_before = Latency(*percentiles(before, SHARES)) if before else None
    return {point: Latency(*percentiles(each, SHARES)) for point, each in points.items()}
