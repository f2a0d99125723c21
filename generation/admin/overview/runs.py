"""The buckets of rollups that make up a time, as a statement reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.admin.overview.periods import longest_buckets
from generation.rollups.buckets import MINUTE, ROLLUP_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.admin.overview.periods import Period
    from generation.rollups.buckets import Span

# What follows SELECT, with a table. OFFSET has the planner read each run through the key.
RUNS = """
    FROM unnest(%(parts)s::text[], %(minutes)s::int[], %(since)s::timestamptz[],
        %(until)s::timestamptz[]) AS run (part, minutes, since, until)
    CROSS JOIN LATERAL (
        SELECT * FROM {table} AS each WHERE each.minutes = run.minutes
            AND each.bucket >= run.since AND each.bucket < run.until OFFSET 0
    ) AS found"""
# The number of the point that a bucket of the part `points` is in.
POINT = "floor(extract(epoch FROM bucket - %(start)s) / %(step)s)::int"


def parameters(period: Period, drawn: Span, summed: Mapping[str, Span]) -> dict[str, Any]:
    """Returns those of `RUNS` and `POINT`.

    `drawn` is the part `points`, in buckets that are no longer than a point of a plot. Of
    `summed`, by the names of the parts, a few long buckets are read.
    """
    lengths = tuple(each for each in ROLLUP_LENGTHS if each >= period.minutes)
    in_a_point = tuple(each for each in lengths if each <= period.step)
    parts = [(part, span, lengths) for part, span in summed.items()]
    runs = [
        (part, minutes, run.since, run.until)
        for part, span, some in [*parts, ("points", drawn, in_a_point)]
        for minutes, run in longest_buckets(span, some)
    ]
    columns = zip(("parts", "minutes", "since", "until"), zip(*runs, strict=True), strict=True)
    return {
        "start": drawn.since,
        "step": period.step * MINUTE.total_seconds(),
        **{name: list(values) for name, values in columns},
    }
