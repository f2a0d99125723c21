"""The retry budget, on a clock that the test moves."""

from __future__ import annotations

import pytest

from generation.llm.retry_budget import RETRY_FLOOR, RETRY_WINDOW_S, RetryBudget


@pytest.fixture
def budget(clock):
    return RetryBudget(clock)


def test_a_quiet_service_can_retry(budget):
    budget.count_call()
    assert all(budget.withdraw() for _ in range(RETRY_FLOOR))
    assert not budget.withdraw(), "the floor is a bound too"


def test_retries_are_a_fifth_of_the_calls(budget, clock):
    sent = retried = 0
    for _ in range(6000):  # a minute at 100 calls per second, all failing, each wanting to retry
        clock.now += 0.01
        budget.count_call()
        sent += 1
        retried += sum(budget.withdraw() for _ in range(2))
    assert retried <= 0.2 * sent, f"{retried} retries of {sent} calls"
    assert retried > 0.18 * sent, "the budget is there to be used"


def test_the_budget_recovers_with_the_window(budget, clock):
    for _ in range(RETRY_FLOOR):
        budget.withdraw()
    clock.now += RETRY_WINDOW_S
    assert budget.withdraw()
