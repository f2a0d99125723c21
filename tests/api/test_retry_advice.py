"""SDKs repeat a request twice by themselves, so an error says whether that is worth it."""

from __future__ import annotations

import pytest

from generation import errors
from generation.api import retry_advice

WORTH_IT = [
    errors.TooManyInFlight("x", retry_after=1),
    errors.Draining("x", retry_after=1),
    errors.LLMCircuitOpen("x", retry_after=10),
    errors.LLMBusy("x", retry_after=1),
    errors.LLMRateLimited("x", retry_after=7000),
    errors.DatabaseUnavailable("x", retry_after=1),
    errors.IdempotencyKeyInUse("x", retry_after=0.5),
]
MAY_BE_PAID = [
    errors.LLMTimedOut("x"),
    errors.LLMUnreachable("x"),
    errors.LLMOverloaded("x", retry_after=5),
    errors.LLMBadReply("x"),
    errors.StreamBroken("x"),
    errors.AbandonedByShutdown("x", retry_after=1),
    errors.StaccatoError.from_bug(),
]


@pytest.mark.parametrize("error", WORTH_IT, ids=lambda error: error.slug)
def test_where_nothing_was_paid_a_client_is_asked_to_come_again_within_a_minute(error):
    headers = retry_advice.headers(error)
    assert headers["x-should-retry"] == "true"
    assert 1 <= int(headers["Retry-After"]) <= 60


@pytest.mark.parametrize("error", MAY_BE_PAID, ids=lambda error: error.slug)
def test_where_money_may_have_been_spent_no_client_is_asked_to_spend_it_again(error):
    headers = retry_advice.headers(error)
    assert headers["x-should-retry"] == "false"
    assert "Retry-After" not in headers


def test_a_clients_own_fault_says_nothing_about_it():
    assert "x-should-retry" not in retry_advice.headers(errors.InvalidRequest("x"))
