"""A load test's plan, results and command, as the tests of it need them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from django.core.management import call_command

from generation.loadtest.run import Outcome, Plan, Result, Sample
from generation.loadtest.target import Service
from generation.management.commands.loadtest import Command
from generation.telemetry.snapshot import DurationSummary, PoolPage, Snapshot

POOL = Snapshot(
    size=10,
    max_overflow=20,
    open=3,
    checked_out=1,
    peak_checked_out=2,
    llm_calls_in_flight=480,
    max_requests_in_flight=5000,
    overhead=DurationSummary(count=900, p50_ms=3.25, p99_ms=11.5),
)


def page(**changes) -> PoolPage:
    return PoolPage.of(1, {1: replace(POOL, **changes)})


def plan(**values) -> Plan:
    usual: dict[str, Any] = {
        "service": Service("http://127.0.0.1:1", ()),
        "users": [1],
        "body": b"{}",
        "concurrency": 500,
        "requests": 1000,
        "duration": None,
        "timeout": 60,
    }
    return Plan(**usual | values)


def result(*outcomes: Outcome, **values) -> Result:
    usual: dict[str, Any] = {
        "began_with": page(peak_checked_out=1),
        "ended_with": page(),
        "outcomes": list(outcomes),
        "samples": [Sample(0.0, 0, POOL), Sample(0.5, 500, POOL)],
        "seconds": 2.0,
        "peak_in_flight": 500,
    }
    return Result(**usual | values)


def loadtest(*arguments: str) -> tuple[int, str]:
    """Exit status and output, without a terminal."""
    output = io.StringIO()
    try:
        call_command(Command(stdout=output, no_color=True), *arguments)
    except SystemExit as end:
        return int(end.code), output.getvalue()
    return 0, output.getvalue()
