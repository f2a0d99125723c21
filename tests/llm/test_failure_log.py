"""A failing provider is in the log: at once, then once in a while with counts."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from generation.llm import failures
from generation.llm.circuit_breaker import CircuitBreaker
from tests.support.provider import hangs, resets, says
from tests.support.waiting import HANG_S


@pytest.fixture
def lines(caplog):
    def read():
        return [r.getMessage() for r in caplog.records if r.name.startswith("generation.llm")]

    return read


@pytest.mark.parametrize(
    ("behaviour", "slug", "words"),
    [
        (says(500, b"{}"), "llm-unreachable", "answered 500"),
        (says(429, b"{}"), "llm-rate-limited", "answered 429"),
        (hangs, "llm-timed-out", "did not answer in time"),
        (resets, "llm-unreachable", "closed the connection"),
        (says(200, b"busy"), "llm-bad-reply", "not JSON"),
    ],
    ids=["fails", "limits", "hangs", "resets", "garbles"],
)
async def test_a_failing_provider_is_in_the_log_once_and_then_with_counts(
    client, server, dialect, prompt, lines, behaviour, slug, words
):
    server.behave = behaviour
    limit_s = 1 if behaviour is hangs else HANG_S
    async with client(LLM_MAX_ATTEMPTS=1, LLM_TIMEOUT=limit_s) as llm:
        await llm.complete(prompt)
        [first] = lines()
        assert words in first
        assert f"{dialect.name} at {server.url}" in first, "who reads it wants to know where"
        await asyncio.gather(*(llm.complete(prompt) for _ in range(5)))
        server.behave = says(200, dialect.answer())
        await llm.complete(prompt)
        assert lines() == [first], "one line per call buries the others"
    _, counts = lines()
    assert f"5 more calls failed and 1 were answered: 5 × {slug}. The last one: " in counts


async def test_counts_come_as_long_as_calls_fail(client, server, prompt, lines):
    server.behave = says(500, b"{}")
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        [upstream] = llm._upstreams.values()
        await llm.complete(prompt)
        for number in range(1, 4):  # as if the time was over
            await llm.complete(prompt)
            upstream.failures.report()
            assert len(lines()) == number + 1
        upstream.failures.report()
        assert len(lines()) == 4, "quiet again"
        await llm.complete(prompt)
        assert "a call failed" in lines()[-1], "the first of a new outage is logged at once"


async def test_the_counts_come_by_themselves(client, server, prompt, lines, monkeypatch):
    monkeypatch.setattr(failures, "REPORT_EVERY_S", 0.1)
    server.behave = says(500, b"{}")
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        await llm.complete(prompt)
        await llm.complete(prompt)
        await server.until(lambda: len(lines()) > 1, "the line with the counts")


async def test_a_callers_fault_and_a_good_answer_leave_no_line(client, server, prompt, lines):
    async with client() as llm:
        await llm.complete(prompt)
        server.behave = says(400, {"error": {"message": "your prompt is too long"}})
        await llm.complete(prompt)
    assert lines() == []


async def test_an_opening_and_a_closing_circuit_are_logged(
    client, server, dialect, prompt, lines, monkeypatch
):
    monkeypatch.setattr("generation.llm.circuit_breaker.PROBE_INTERVAL_S", 0.1)
    server.behave = says(500, b"{}")
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        for _ in range(12):
            await llm.complete(prompt)
        server.behave = says(200, dialect.answer())
        await asyncio.sleep(0.2)
        assert (await llm.complete(prompt)).reply is not None
    circuits = [line for line in lines() if "circuit" in line and "calls failed and" not in line]
    assert re.match(f"{dialect.name}: .* the circuit opens", circuits[0])
    assert re.match(f"{dialect.name} answers again: the circuit closes after", circuits[1])
    assert len(circuits) == 2


def test_the_circuit_says_how_long_it_was_open(clock):
    changes = []
    circuit = CircuitBreaker(clock, changes.append)
    for _ in range(10):
        circuit.settle(circuit.admit(), failed=True)
    clock.now += 7
    circuit.settle(circuit.admit(), failed=False)
    assert changes == [None, 7.0]


async def test_an_alarm_says_how_many_calls_failed_since_the_last(
    client, server, prompt, caplog, monkeypatch
):
    server.behave = says(401, b"{}")
    async with client() as llm:
        [upstream] = llm._upstreams.values()
        for _ in range(3):
            await llm.complete(prompt)
        upstream._alarm_due = 0.0
        await llm.complete(prompt)
    alarms = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert ["0 calls" in r.getMessage() for r in alarms] == [True, False]
    assert "2 calls failed so since the last such line" in alarms[1].getMessage()
