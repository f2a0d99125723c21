"""What a load test showed, in words."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.loadtest.run import Plan, Result


@dataclass(frozen=True, slots=True)
class Verdict:
    passed: bool
    headline: str
    sentences: tuple[str, ...]


def judge(plan: Plan, result: Result) -> Verdict:
    """Anything but a 200 is a failure, and so is a test that got no answer at all."""
    total, faults = len(result.outcomes), result.faults
    failed = faults.total()
    passed = total > 0 and failed == 0
    answered = total - failed
    rate = answered / result.seconds if result.seconds else 0.0
    headline = (
        f"{'PASSED' if passed else 'FAILED'}: {answered:,} of {total:,} requests answered with"
        f" 200, up to {result.peak_in_flight:,} at once, in {result.seconds:.1f} s"
        f" ({rate:.1f} a second)."
    )
    return Verdict(
        passed,
        headline,
        (
            *(f"Failures: {number:,} × {kind}." for kind, number in faults.most_common()),
            *_latency(result),
            *_connections(result),
            *_overhead(result),
            *_beyond_limits(plan, result),
        ),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:  # noqa: PLR2004  # quantiles need two
        return values[0] if values else 0.0
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _latency(result: Result) -> list[str]:
    times = [outcome.seconds for outcome in result.outcomes if not outcome.fault]
    if not times:
        return []
    return [
        (
            f"Latency: {percentile(times, 50):.3f} s in the median, {percentile(times, 99):.3f} s"
            f" at the 99th percentile, {max(times):.3f} s at most."
        )
    ]


def _connections(result: Result) -> list[str]:
    seen = [sample.pool for sample in result.samples if sample.pool]
    end = result.ended_with
    if not end or not seen:
        why = result.no_pool_because or "the service did not answer in time"
        return [f"Connections: not known, since /api/v1/pool can't be read ({why})."]
    size, overflow = end["size"], end["max_overflow"]
    peak = end["peak_checked_out"]
    before = result.began_with.get("peak_checked_out", 0)
    since = "" if peak > before else " (since the service started)"
    waiting = max(pool["llm_calls_in_flight"] for pool in seen)
    sampled = max(pool["checked_out"] for pool in seen)
    processes = [entry for entry in end.get("processes", [end]) if entry.get("answers", True)]
    pools = "the pool" if len(processes) == 1 else f"the pools of {len(processes)} processes"
    beyond = "it" if len(processes) == 1 else "them"
    lines = [
        (
            f"Connections: at most {peak} checked out at once{since}, of {size} in {pools} and"
            f" {overflow} beyond {beyond}; {sampled} in the worst of {len(seen)} samples, while up"
            f" to {waiting:,} requests waited for the LLM."
        )
    ]
    if any(process["peak_checked_out"] >= process["size"] for process in processes):
        lines.append(
            "The pool was used up: overflow connections are opened and closed for each use, so"
            " raise DB_POOL_SIZE (manage.py poolsize)."
        )
    return lines


def _overhead(result: Result) -> list[str]:
    overhead: dict[str, Any] = result.ended_with.get("overhead", {})
    if not overhead.get("count"):
        return []
    return [
        (
            f"Overhead: a request spent {overhead['p50_ms']:.1f} ms in the median and"
            f" {overhead['p99_ms']:.1f} ms at the 99th percentile outside of its LLM call (of the"
            f" last {min(overhead['count'], 4096):,}{_in_the_worst(result)})."
        )
    ]


def _in_the_worst(result: Result) -> str:
    several = len(result.ended_with.get("processes", ())) > 1
    return " in the process where it was most" if several else ""


def _beyond_limits(plan: Plan, result: Result) -> list[str]:
    limit = result.ended_with.get("max_requests_in_flight", plan.concurrency)
    if plan.concurrency <= limit:
        return []
    return [
        (
            f"The service takes {limit:,} requests at once (STACCATO_MAX_IN_FLIGHT, or its"
            f" open-file limit), and {plan.concurrency:,} were asked"
            " for: the rest is refused with 503."
        )
    ]
