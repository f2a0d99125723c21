"""The buckets of rollups that make up a time, as a statement reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.admin.overview.periods import longest_buckets, longest_starts
from generation.rollups.buckets import MINUTE, ROLLUP_LENGTHS, SPENDER_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.admin.overview.periods import Period, Window
    from generation.rollups.buckets import Span

# What follows SELECT, with a table. OFFSET has the planner read each run through the key.
RUNS = """
    FROM unnest(%(parts)s::text[], %(minutes)s::int[], %(since)s::timestamptz[],
        %(until)s::timestamptz[]) AS run (part, minutes, since, until)
    CROSS JOIN LATERAL (
        SELECT * FROM {table} AS each WHERE each.minutes = run.minutes
            AND each.bucket >= run.since AND each.bucket < run.until OFFSET 0
    ) AS found"""
# The same, with a relation `spender` of kinds and keys: each row of theirs through its key.
LOOKUPS = """
    FROM unnest(%(parts)s::text[], %(points)s::int[], %(minutes)s::int[],
        %(buckets)s::timestamptz[]) AS wanted (part, point, minutes, bucket)
    CROSS JOIN {spender}
    CROSS JOIN LATERAL (
        SELECT requests, failed, priced, unpriced, input_tokens, output_tokens, cost_usd
        FROM generation_spender AS each
        WHERE each.minutes = wanted.minutes AND each.bucket = wanted.bucket
            AND each.kind = spender.kind AND each.key = spender.key OFFSET 0
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


def lookups(found: Window, step: int) -> dict[str, Any]:
    """Returns the parameters of `LOOKUPS`, for the hours of a window.

    The part `period` is in buckets that are no longer than a point of `step` minutes, each with its
    point's number. Of `partial` and `before`, whose point is 0, a few long buckets are read.
    """
    start = found.span.widened(step).since
    in_a_point = tuple(each for each in SPENDER_LENGTHS if each <= step)
    wanted = [
        ("period", (bucket - start) // (step * MINUTE), minutes, bucket)
        for minutes, bucket in longest_starts(found.span, in_a_point)
    ] + [
        (part, 0, minutes, bucket)
        for part, span in (("partial", found.partial), ("before", found.before))
        for minutes, bucket in longest_starts(span, SPENDER_LENGTHS)
    ]
    columns = zip(("parts", "points", "minutes", "buckets"), zip(*wanted, strict=True), strict=True)
    return {name: list(values) for name, values in columns}
