"""What was in flight over the last two minutes: bounded, cheap, and summed at the same second."""

from __future__ import annotations

import time

from generation.telemetry.history import EVERY_S, SECONDS, History, Seconds, summed

NOW = 1_000_000


async def test_it_has_the_last_120_seconds_and_no_more():
    seconds = iter(range(1000))
    history = History(lambda: (7, 1), clock=lambda: next(seconds) + 0.5)
    for _ in range(1000):
        await history.note()
    points = history.points()
    assert len(points) == SECONDS
    assert (points[0], points[-1]) == ((880, 7, 1), (999, 7, 1))


async def test_it_costs_less_than_a_thousandth_of_a_core(runtime):
    began = time.process_time()
    for _ in range(1000):
        await runtime.history.note()
    assert time.process_time() - began < 1000 * EVERY_S / 1000


def test_processes_are_summed_at_the_same_second():
    """Their most at once were at different seconds, so they are not the most of all."""
    one = [(NOW, 30, 1), (NOW + 1, 0, 0), (NOW + 2, 5, 0)]
    other = [(NOW, 0, 0), (NOW + 1, 40, 2), (NOW + 2, 5, 0)]
    assert summed([one, other, []]) == Seconds(
        requests_in_flight=(30, 40, 10), checked_out=(1, 2, 0)
    )
    assert summed([[]]) == Seconds()


def test_a_process_has_nothing_before_its_start_and_what_it_had_while_its_loop_was_blocked():
    long_there = [(NOW + n, 10, 0) for n in range(5)]
    new = [(NOW + 1, 1, 1), (NOW + 3, 2, 0)]  # blocked at 2, and not yet there at 4
    assert summed([long_there, new]) == Seconds(
        requests_in_flight=(10, 11, 11, 12, 12), checked_out=(0, 1, 1, 0, 0)
    )


def test_a_clock_that_was_set_makes_no_endless_sum():
    leapt = [(0, 1, 0), (NOW, 2, 0)]
    found = summed([leapt, [(NOW - 10_000_000, 3, 0)]])
    assert len(found.requests_in_flight) == SECONDS
    assert found.requests_in_flight[-1] == 2
