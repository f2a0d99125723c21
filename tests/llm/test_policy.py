"""What an answer means and what follows: pure, so every combination is tried."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from generation import errors
from generation.llm import policy

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

MEANINGS = {
    100: errors.LLMBadReply,
    301: errors.LLMMisconfigured,
    302: errors.LLMMisconfigured,
    400: errors.LLMRefused,
    401: errors.LLMAuthentication,
    402: errors.LLMMisconfigured,
    403: errors.LLMAuthentication,
    404: errors.LLMMisconfigured,
    408: errors.LLMTimedOut,
    409: errors.LLMOverloaded,
    413: errors.LLMRefused,
    418: errors.LLMRefused,
    422: errors.LLMRefused,
    429: errors.LLMRateLimited,
    500: errors.LLMUnreachable,
    502: errors.LLMUnreachable,
    503: errors.LLMOverloaded,
    504: errors.LLMTimedOut,
    524: errors.LLMUnreachable,
    529: errors.LLMOverloaded,
    600: errors.LLMBadReply,
}
RETRIED = {408, 409, 429, 500, 502, 503, 504, 524, 529, 100, 600}


@pytest.mark.parametrize(("status", "kind"), MEANINGS.items())
def test_a_status_means_one_error(status, kind):
    assert policy.classify(status) is kind


def test_every_status_means_some_error_and_never_the_callers_401():
    for status in range(100, 700):
        assert policy.classify(status).status in {422, 429, 502, 503, 504}, status


RETRY_AFTER = [
    ({}, None),
    ({"retry-after": "1"}, 1),
    ({"retry-after": " 5 "}, 5),
    ({"retry-after": "0"}, 0),
    ({"retry-after": "0.25"}, 0.25),
    ({"retry-after": "3600"}, 3600),
    ({"retry-after": "999999999"}, 86_400),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "1e9"}, None),
    ({"retry-after": "٣"}, None),
    ({"retry-after": "5, 6"}, None),
    ({"retry-after": "Sun, 01 Mar 2026 12:00:07 GMT"}, 7),
    ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0),
    ({"retry-after": "Sun, 01 Mar 2026 12:00:07"}, None),
    ({"retry-after": "Sun, 99 Mar 2026 12:00:07 GMT"}, None),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
    ({"retry-after-ms": "junk", "retry-after": "2"}, 2),
    ({"retry-after-ms": "-5", "retry-after": "-5"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
def test_retry_after_is_read_in_every_form_and_garbage_is_survived(headers, seconds):
    assert policy.retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "word"),
    [("true", True), ("false", False), (" True ", True), ("", None), ("maybe", None), ("1", None)],
)
def test_x_should_retry_is_the_providers_word(value, word):
    assert policy.should_retry({"x-should-retry": value}) is word


@pytest.mark.parametrize("attempt", [1, 2, 3])
@pytest.mark.parametrize("status", MEANINGS)
def test_every_status_header_attempt_and_remaining_time(status, attempt):
    words = [{}, {"x-should-retry": "true"}, {"x-should-retry": "false"}]
    times = [headers for headers, _ in RETRY_AFTER]
    for word, time, remaining, chance in product(
        words, times, [-1.0, 0.1, 1.0, 6.0, 30.0], [0.0, 0.999]
    ):
        hint = policy.retry_after(time, NOW)
        error = policy.classify(status)(
            "no", retry_after=hint, should_retry=policy.should_retry(word)
        )
        delay = policy.retry_delay(
            error, attempt=attempt, max_attempts=3, remaining=remaining, chance=chance
        )
        case = f"{status} {word | time} attempt {attempt} remaining {remaining} gave {delay}"
        helps = {"true": True, "false": False}.get(word.get("x-should-retry"), status in RETRIED)
        backoff = 0.5 * 2 ** (attempt - 1) * chance
        wanted = max(backoff, hint or 0)
        if not helps or attempt == 3 or wanted >= remaining:
            assert delay is None, case
        else:
            assert delay == wanted, case


def test_backoff_doubles_to_a_limit():
    def ceiling(attempt):
        return policy.retry_delay(
            errors.LLMUnreachable("no"),
            attempt=attempt,
            max_attempts=10_000,
            remaining=1e9,
            chance=1.0,
        )

    assert [ceiling(attempt) for attempt in (1, 2, 3, 4, 5, 6, 5000)] == [0.5, 1, 2, 4, 8, 8, 8]


def test_a_fallbacks_share_of_the_time_is_kept_for_it():
    assert policy.deadline_before_fallback(100, 130) == 120
    assert policy.deadline_before_fallback(130, 130) == 130


LLM_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.LLMError)
]


@pytest.mark.parametrize("kind", LLM_ERRORS)
def test_a_fallback_helps_with_all_but_the_callers_fault(kind):
    assert policy.fallback_helps(kind("no")) is not issubclass(kind, errors.LLMRefused)


def test_a_caller_s_fault_is_a_sign_of_health_and_a_rate_limit_of_nothing():
    assert policy.shows_outage(errors.LLMRefused("no")) is False
    assert policy.shows_outage(errors.LLMAuthentication("no")) is False
    assert policy.shows_outage(errors.LLMRateLimited("no")) is None
    for kind in (
        errors.LLMOverloaded,
        errors.LLMUnreachable,
        errors.LLMTimedOut,
        errors.LLMBadReply,
    ):
        assert policy.shows_outage(kind("no")) is True
