"""The figures of several processes as those of one, and the JSON of the pool page."""

from __future__ import annotations

import orjson

from generation.telemetry.durations import Durations, percentile
from generation.telemetry.snapshot import DurationSummary, JournalSnapshot, PoolPage, Snapshot


def durations(count: int, mean: float, p99: float) -> DurationSummary:
    return DurationSummary(count=count, mean_ms=mean, p99_ms=p99, max_ms=p99)


def test_durations_add_up_to_the_true_mean_and_the_worst_percentile():
    assert durations(1, 10.0, 10.0) + durations(3, 2.0, 4.0) == durations(4, 4.0, 10.0)
    assert durations(0, 0.0, 0.0) + durations(0, 0.0, 0.0) == durations(0, 0.0, 0.0)


def test_every_figure_of_a_snapshot_is_summed():
    one = Snapshot(size=1, peak_open=2, journal=JournalSnapshot(rows=3))
    both = one + Snapshot(size=10, peak_open=20, journal=JournalSnapshot(rows=30))
    assert both == Snapshot(size=11, peak_open=22, journal=JournalSnapshot(rows=33))


def test_a_circuit_that_several_processes_have_opened_is_named_once():
    one = Snapshot(open_circuits=("openai",), draining=1)
    both = one + Snapshot(open_circuits=("anthropic", "openai"), draining=1)
    assert both == Snapshot(open_circuits=("anthropic", "openai"), draining=2)


def test_a_figure_that_another_version_of_the_service_lacks_counts_as_zero():
    other = Snapshot.parse(b'{"size": 1, "journal": {"rows": 2}, "of a later version": 3}')
    assert Snapshot(size=1, open=4) + other == Snapshot(
        size=2, open=4, journal=JournalSnapshot(rows=2)
    )


def test_a_page_survives_its_json():
    page = PoolPage.of(1, {1: Snapshot(size=10, holds=durations(3, 0.25, 1.0)), 2: None})
    assert PoolPage.parse(orjson.dumps(page.as_json())) == page


def test_the_pages_keys_are_stable():
    summary = {"count", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms"}
    page = PoolPage.of(1, {1: Snapshot(), 2: None}).as_json()
    figures = {
        "size", "max_overflow", "open", "checked_out", "checked_in", "overflow", "peak_open",
        "peak_checked_out", "waits", "holds", "requests_in_flight", "peak_requests_in_flight",
        "max_requests_in_flight", "requests_abandoned", "requests_answered", "overhead",
        "llm_calls_in_flight", "open_circuits", "draining", "journal",
    }  # fmt: skip
    assert page.keys() == {"process", *figures, "processes", "total"}
    assert page["total"].keys() == figures
    for name in ("waits", "holds", "requests_answered", "overhead"):
        assert page[name].keys() == summary
    assert page["journal"].keys() == {
        "rows", "bytes", "capacity_bytes", "rows_in_memory_only", "rows_refused"
    }  # fmt: skip
    answering, silent = page["processes"]
    assert answering.keys() == {
        "process", "answers", "size", "open", "checked_out", "overflow", "peak_checked_out",
        "requests_in_flight", "llm_calls_in_flight", "journal_rows", "max_overflow",
        "peak_requests_in_flight", "max_requests_in_flight", "journal_rows_in_memory_only",
        "open_circuits", "draining",
    }  # fmt: skip
    assert silent == {"process": 2, "answers": False}


def test_durations_are_shown_to_the_microsecond():
    measured = Durations()
    for ms in (1, 2, 4):
        measured.add(ms / 1000)
    page = PoolPage.of(1, {1: Snapshot(waits=measured.summary())}).as_json()
    assert page["waits"] == {
        "count": 3, "mean_ms": 2.333, "p50_ms": 2.0, "p95_ms": 4.0, "p99_ms": 4.0, "max_ms": 4.0
    }  # fmt: skip


def test_a_percentile_has_its_share_of_the_values_before_it():
    values = list(range(100))
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]
    assert percentile([], 0.5) == 0.0
