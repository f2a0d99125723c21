"""What a load test shows, in words: its progress, and whether it passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.telemetry.durations import RECENT, percentile

if TYPE_CHECKING:
    from generation.loadtest.run import Plan, Result, Sample


@dataclass(frozen=True, slots=True)
class Verdict:
    passed: bool
    headline: str
    sentences: tuple[str, ...]


def progress(plan: Plan, result: Result, sample: Sample) -> str:
    """Returns one line on the state of a test that is running."""
    under_way, over = ("open streams", "ended") if plan.is_streamed else ("in flight", "answered")
    line = (
        f"{sample.at:6.1f} s  {under_way} {sample.in_flight:5}  {over}"
        f" {len(result.outcomes):7}  failed {result.faults.total():5}"
    )
    if plan.is_streamed:
        line += f"  events {sample.tempo.per_s:6.0f}/s"
    pool = sample.pool
    if pool is None:
        return line
    return (
        f"{line}  |  connections: {pool.checked_out} checked out, {pool.open} open of"
        f" {pool.size};  waiting for the LLM {pool.llm_calls_in_flight:5}"
    )


def judge(plan: Plan, result: Result) -> Verdict:
    """Any answer but a 200 is a failure, so is a stream that does not end with `done`, and so is
    a test without any answer.
    """
    total, faults = len(result.outcomes), result.faults
    failed = faults.total()
    passed = total > 0 and failed == 0
    answered = total - failed
    rate = answered / result.seconds if result.seconds else 0.0
    what = "streams read to their end" if plan.is_streamed else "requests answered with 200"
    headline = (
        f"{'PASSED' if passed else 'FAILED'}: {answered:,} of {total:,} {what}, up to"
        f" {result.peak_in_flight:,} at once, in {result.seconds:.1f} s ({rate:.1f} a second)."
    )
    return Verdict(
        passed,
        headline,
        (
            *(f"Failures: {number:,} × {kind}." for kind, number in faults.most_common()),
            *(_streams(result) if plan.is_streamed else _latency(result)),
            *_connections(result),
            *_overhead(result),
            *_beyond_limits(plan, result),
        ),
    )


def _latency(result: Result) -> list[str]:
    times = sorted(outcome.seconds for outcome in result.outcomes if not outcome.fault)
    if not times:
        return []
    return [
        (
            f"Latency: median {percentile(times, 0.50):.3f} s, 99th percentile"
            f" {percentile(times, 0.99):.3f} s, maximum {times[-1]:.3f} s."
        )
    ]


def _streams(result: Result) -> list[str]:
    firsts = sorted(outcome.first for outcome in result.outcomes if outcome.first is not None)
    if not firsts:
        return []
    tempo = result.tempo
    return [
        (
            f"First token: median {percentile(firsts, 0.50):.3f} s, 99th percentile"
            f" {percentile(firsts, 0.99):.3f} s, maximum {firsts[-1]:.3f} s."
        ),
        (
            f"Gaps between events: median {tempo.gap_p50 * 1000:.1f} ms, 99th percentile"
            f" {tempo.gap_p99 * 1000:.1f} ms, longest {tempo.longest_gap * 1000:,.0f} ms;"
            f" {tempo.events:,} events, {tempo.per_s:,.0f} a second."
        ),
    ]


def _connections(result: Result) -> list[str]:
    seen = [sample.pool for sample in result.samples if sample.pool]
    if not result.ended_with or not seen:
        why = result.no_pool_because or "the service did not answer in time"
        return [f"Connections: unknown, because /api/v1/pool can't be read ({why})."]
    end = result.ended_with.total
    before = result.began_with.total.peak_checked_out if result.began_with else 0
    since = "" if end.peak_checked_out > before else " (since the service started)"
    waiting = max(pool.llm_calls_in_flight for pool in seen)
    sampled = max(pool.checked_out for pool in seen)
    processes = result.ended_with.answering
    pools = "the pool" if len(processes) == 1 else f"the pools of {len(processes)} processes"
    beyond = "it" if len(processes) == 1 else "them"
    lines = [
        (
            f"Connections: at most {end.peak_checked_out} checked out at once{since}, of"
            f" {end.size} in {pools} and {end.max_overflow} beyond {beyond}; {sampled} in the"
            f" worst of {len(seen)} samples, while up to {waiting:,} requests waited for the LLM."
        )
    ]
    if any(process.peak_checked_out >= process.size for process in processes):
        lines.append(
            "The pool was exhausted: overflow connections are opened and closed for each use."
            " Raise DB_POOL_SIZE (manage.py poolsize)."
        )
    return lines


def _overhead(result: Result) -> list[str]:
    page = result.ended_with
    if page is None or not page.total.overhead.count:
        return []
    overhead = page.total.overhead
    where = " in the worst process" if len(page.processes) > 1 else ""
    return [
        (
            f"Overhead: a request spent {overhead.p50_ms:.1f} ms in the median and"
            f" {overhead.p99_ms:.1f} ms at the 99th percentile outside its LLM call (of the"
            f" last {min(overhead.count, RECENT):,}{where})."
        )
    ]


def _beyond_limits(plan: Plan, result: Result) -> list[str]:
    page = result.ended_with
    if page is None or plan.concurrency <= page.total.max_requests_in_flight:
        return []
    return [
        (
            f"The service takes {page.total.max_requests_in_flight:,} requests at once"
            " (STACCATO_MAX_IN_FLIGHT, or its open-file limit), and the test sent"
            f" {plan.concurrency:,}: it refuses the rest with 503."
        )
    ]
