"""The circuit breaker, on a clock that the test moves."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest

from generation.llm.circuit_breaker import OUTAGE_MIN_FAILURES, PROBE_INTERVAL_S, CircuitBreaker


@pytest.fixture
def circuit(clock):
    return CircuitBreaker(clock)


def fail(circuit, times=OUTAGE_MIN_FAILURES):
    for _ in range(times):
        if (ticket := circuit.admit()) is not None:
            circuit.settle(ticket, failed=True)


def succeed(circuit, times=1):
    for _ in range(times):
        if (ticket := circuit.admit()) is not None:
            circuit.settle(ticket, failed=False)


def seconds_to_open(circuit, clock, *, latency, failing_after=0.05, rate=100):
    """Healthy traffic of that latency, then every new call fails. Gives the delay to open."""
    began, under_way = clock.now + 40, []
    while not circuit.is_open and clock.now < began + 200:
        clock.now += 1 / rate
        if (ticket := circuit.admit()) is not None:
            failed = clock.now >= began
            ends = clock.now + (failing_after if failed else latency)
            heapq.heappush(under_way, (ends, ticket, failed))
        while under_way and under_way[0][0] <= clock.now:
            _, ticket, failed = heapq.heappop(under_way)
            circuit.settle(ticket, failed=failed)
    return clock.now - began


@pytest.mark.parametrize("latency", [0.05, 1, 2, 8, 30])
def test_total_failure_opens_the_circuit_within_two_seconds(circuit, clock, latency):
    """However slow the answers from before the outage are, and still coming in."""
    assert 0 < seconds_to_open(circuit, clock, latency=latency) < 2


def test_calls_that_hang_open_the_circuit_once_they_time_out(circuit, clock):
    assert 20 < seconds_to_open(circuit, clock, latency=2, failing_after=20) < 22


def test_quick_failures_before_slow_answers_are_no_outage(circuit, clock):
    """A burst after silence: a tenth fails at once, the rest is still being answered."""
    tickets = [circuit.admit() for _ in range(200)]
    for ticket in tickets[:20]:
        circuit.settle(ticket, failed=True)
    assert not circuit.is_open
    clock.now += 20
    for ticket in tickets[20:60]:
        circuit.settle(ticket, failed=True)
    assert not circuit.is_open, "forty of two hundred timed out together"


def test_failures_from_before_a_recovery_are_no_outage(circuit, clock):
    hanging = [circuit.admit() for _ in range(100)]
    clock.now += 5
    succeed(circuit)
    clock.now += 15
    for ticket in hanging:
        circuit.settle(ticket, failed=True)
    assert not circuit.is_open, "a call begun later was answered, so the outage is over"


def test_rate_limits_neither_open_the_circuit_nor_hide_an_outage(circuit):
    for _ in range(100):
        circuit.settle(circuit.admit(), failed=None)
    assert not circuit.is_open
    fail(circuit)
    assert circuit.is_open


def test_a_provider_that_answers_some_is_not_cut_off(circuit, clock):
    for number in range(2000):
        clock.now += 0.01
        fail(circuit, 1) if number % 4 else succeed(circuit)
    assert not circuit.is_open


@pytest.mark.parametrize("every", [0.5, 5])
def test_a_quiet_services_circuit_opens_when_ten_in_a_row_have_hung(circuit, clock, every):
    seconds = seconds_to_open(circuit, clock, latency=2, failing_after=20, rate=1 / every)
    assert 20 < seconds <= 20 + (OUTAGE_MIN_FAILURES + 1) * every


def test_a_hang_now_and_then_is_no_outage(circuit, clock):
    """A call that was answered since shows that the provider works, however few there are."""
    hanging = deque()
    for number in range(1000):
        clock.now += 1
        if number % OUTAGE_MIN_FAILURES == 0:
            succeed(circuit)
        elif (ticket := circuit.admit()) is not None:
            hanging.append(ticket)
        if len(hanging) > 20:
            circuit.settle(hanging.popleft(), failed=True)
    assert not circuit.is_open


@pytest.mark.parametrize(("rate", "share", "latency"), [(3, 0.5, 8), (2, 0.6, 8), (5, 0.5, 8)])
def test_quick_failures_of_a_part_open_no_quiet_services_circuit(
    circuit, clock, rate, share, latency
):
    """Answers take their time, so they are still under way among the failures."""
    luck, under_way = random.Random(7), []
    for _ in range(20 * 60 * rate):
        clock.now += 1 / rate
        ticket = circuit.admit()
        assert ticket is not None, "half of the calls are answered, and it is cut off"
        if luck.random() < share:
            circuit.settle(ticket, failed=True)
        else:
            under_way.append((clock.now + latency, ticket))
        while under_way and under_way[0][0] <= clock.now:
            circuit.settle(under_way.pop(0)[1], failed=False)


def test_a_few_failures_are_no_outage(circuit, clock):
    for _ in range(100):
        clock.now += 1
        fail(circuit, 1)
    assert not circuit.is_open


def test_while_open_no_call_is_admitted(circuit, clock):
    fail(circuit)
    assert circuit.admit() is None
    assert circuit.retry_after == PROBE_INTERVAL_S
    clock.now += PROBE_INTERVAL_S / 2
    assert circuit.admit() is None
    assert circuit.retry_after == PROBE_INTERVAL_S / 2


def test_half_open_admits_one_probe_at_a_time(circuit, clock):
    fail(circuit)
    clock.now += PROBE_INTERVAL_S
    assert circuit.admit() is not None
    assert circuit.admit() is None, "a second caller went through beside the probe"


def test_a_probe_that_succeeds_closes_the_circuit(circuit, clock):
    fail(circuit)
    clock.now += PROBE_INTERVAL_S
    succeed(circuit)
    assert not circuit.is_open
    fail(circuit, OUTAGE_MIN_FAILURES - 1)
    assert not circuit.is_open, "failures from before the recovery still counted"


def test_a_probe_that_fails_keeps_the_circuit_open(circuit, clock):
    fail(circuit)
    clock.now += PROBE_INTERVAL_S
    fail(circuit, 1)
    assert circuit.is_open
    assert circuit.retry_after == PROBE_INTERVAL_S


def test_a_probe_that_hangs_does_not_keep_the_next_waiting(circuit, clock):
    fail(circuit)
    clock.now += PROBE_INTERVAL_S
    hanging = circuit.admit()
    assert circuit.retry_after == PROBE_INTERVAL_S
    clock.now += PROBE_INTERVAL_S
    answered = circuit.admit()
    assert answered is not None, "the circuit stays open until a hanging probe times out"
    assert circuit.admit() is None
    circuit.settle(hanging, failed=True)
    circuit.settle(answered, failed=False)
    assert not circuit.is_open, "the hanging probe's end hid that a later one was answered"


def test_a_cancelled_probe_frees_the_slot(circuit, clock):
    fail(circuit)
    clock.now += PROBE_INTERVAL_S
    circuit.settle(circuit.admit(), failed=None)
    assert circuit.admit() is not None, "the slot of the cancelled probe is lost"


def test_a_probe_that_is_over_does_not_free_another_probes_slot(circuit, clock):
    fail(circuit)
    clock.now += PROBE_INTERVAL_S
    first = circuit.admit()
    circuit.settle(first, failed=None)
    assert circuit.admit() is not None
    circuit.settle(first, failed=None)
    assert circuit.admit() is None


def test_calls_from_before_the_outage_decide_nothing(circuit, clock):
    before = [circuit.admit() for _ in range(20)]
    clock.now += 5
    fail(circuit)
    for ticket in before[:10]:
        circuit.settle(ticket, failed=False)
    assert circuit.is_open, "an old success closed it"
    clock.now += PROBE_INTERVAL_S
    succeed(circuit)
    for ticket in before[10:]:
        circuit.settle(ticket, failed=True)
    assert not circuit.is_open, "old failures opened it again"


def test_what_is_kept_is_bounded(circuit, clock):
    for _ in range(10_000):
        clock.now += 1
        circuit.admit()
    assert len(circuit._slots) < 1000
