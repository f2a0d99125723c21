"""The load test's report: one HTML file that contains its plots and loads nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from django.template.loader import render_to_string

from generation.charts.axes import seconds_axis
from generation.charts.plots import Caption, lines
from generation.charts.stylesheet import stylesheet
from generation.telemetry.durations import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from generation.charts.axes import Axis
    from generation.charts.plots import Plot, Point
    from generation.loadtest.run import Plan, Result
    from generation.loadtest.verdict import Verdict
    from generation.telemetry.snapshot import Snapshot

COLUMNS = 120  # of a plot over outcomes: a column sums up those that came in it
NAMED_FAULTS = 2  # in the plot of failures; the rest is one line


def render(plan: Plan, result: Result, verdict: Verdict, day: str) -> str:
    end = max(result.seconds, 0.001)
    axis = seconds_axis(end)
    looks = result.samples

    def from_pool(figure: Callable[[Snapshot], int]) -> list[Point]:
        return [(sample.at, figure(sample.pool)) for sample in looks if sample.pool]

    size = result.ended_with.total.size if result.ended_with else 0
    is_streamed = plan.is_streamed
    plots = [
        lines(
            Caption(
                "Streams open" if is_streamed else "Requests in flight",
                "As the callers count them, and those for which the LLM has more to say."
                if is_streamed
                else "Sent and not answered, as the callers count them, and waiting for the LLM.",
            ),
            axis,
            {
                "open" if is_streamed else "sent, not answered": [
                    (sample.at, sample.in_flight) for sample in looks
                ],
                "waiting for the LLM": from_pool(lambda pool: pool.llm_calls_in_flight),
            },
        ),
        lines(
            Caption("Database connections", "Checked out and open, compared with the pool's size."),
            axis,
            {
                "checked out": from_pool(lambda pool: pool.checked_out),
                "open": from_pool(lambda pool: pool.open),
                "pool size": [(0.0, size), (end, size)] if size else [],
            },
        ),
        *(_stream_plots(result, end, axis) if is_streamed else [_latency_plot(result, end, axis)]),
    ]
    if result.faults:
        plots.append(
            lines(
                Caption(
                    "Failures a second",
                    "Answers other than 200, and requests without one, by kind.",
                ),
                axis,
                _failures(result, end),
            )
        )
    context = {
        "plan": plan,
        "verdict": verdict,
        "plots": plots,
        "day": day,
        "chart_styles": stylesheet(),
    }
    return render_to_string("generation/loadtest.html", context)


def _latency_plot(result: Result, end: float, axis: Axis) -> Plot:
    times = [(outcome.at, outcome.seconds) for outcome in result.outcomes]
    return lines(
        Caption("Latency in seconds", "Of the requests that ended at that time."),
        axis,
        {"median": _over_time(times, end, 0.50), "99th percentile": _over_time(times, end, 0.99)},
    )


def _stream_plots(result: Result, end: float, axis: Axis) -> list[Plot]:
    firsts = [
        (outcome.at - outcome.seconds + outcome.first, outcome.first)
        for outcome in result.outcomes
        if outcome.first is not None
    ]
    looks = [sample for sample in result.samples if sample.tempo.events]
    return [
        lines(
            Caption(
                "Time to first token in seconds",
                "Of the streams whose first content came at that time.",
            ),
            axis,
            {
                "median": _over_time(firsts, end, 0.50),
                "99th percentile": _over_time(firsts, end, 0.99),
            },
        ),
        lines(
            Caption(
                "Gaps between events in seconds",
                "From one event of a stream to its next, which came at that time.",
            ),
            axis,
            {
                "median": [(look.at, look.tempo.gap_p50) for look in looks],
                "99th percentile": [(look.at, look.tempo.gap_p99) for look in looks],
            },
        ),
        lines(
            Caption("Events a second", "Of all streams together."),
            axis,
            {"events": [(sample.at, sample.tempo.per_s) for sample in result.samples]},
        ),
    ]


def _over_time(found: Iterable[Point], end: float, share: float) -> list[Point]:
    """`found`: times of something, each with when it was seen."""
    columns: dict[int, list[float]] = {}
    for at, seconds in found:
        columns.setdefault(_column(at, end), []).append(seconds)
    return [
        (_middle(column, end), percentile(sorted(times), share))
        for column, times in sorted(columns.items())
    ]


def _failures(result: Result, end: float) -> dict[str, list[Point]]:
    named = [kind for kind, _ in result.faults.most_common(NAMED_FAULTS)]
    counts: dict[str, Counter[int]] = {kind: Counter() for kind in named}
    for outcome in result.outcomes:
        if outcome.fault:
            kind = outcome.fault if outcome.fault in named else "other failures"
            counts.setdefault(kind, Counter())[_column(outcome.at, end)] += 1
    return {
        kind: [(_middle(column, end), found[column] * COLUMNS / end) for column in range(COLUMNS)]
        for kind, found in counts.items()
    }


def _column(at: float, end: float) -> int:
    return min(int(at / end * COLUMNS), COLUMNS - 1)


def _middle(column: int, end: float) -> float:
    return (column + 0.5) / COLUMNS * end
