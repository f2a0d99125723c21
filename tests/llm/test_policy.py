"""What an answer means and what follows: pure, so every combination is tried."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from generation import errors
from generation.llm import policy
from generation.records import Finding, Reply, Usage

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
    407: errors.LLMMisconfigured,
    408: errors.LLMTimedOut,
    409: errors.LLMOverloaded,
    410: errors.LLMMisconfigured,
    413: errors.LLMRefused,
    415: errors.LLMMisconfigured,
    418: errors.LLMRefused,
    421: errors.LLMUnreachable,
    422: errors.LLMRefused,
    423: errors.LLMOverloaded,
    424: errors.LLMUnreachable,
    425: errors.LLMOverloaded,
    429: errors.LLMRateLimited,
    451: errors.LLMMisconfigured,
    498: errors.LLMOverloaded,
    499: errors.LLMUnreachable,
    500: errors.LLMUnreachable,
    501: errors.LLMMisconfigured,
    502: errors.LLMUnreachable,
    503: errors.LLMOverloaded,
    504: errors.LLMTimedOut,
    511: errors.LLMMisconfigured,
    520: errors.LLMUnreachable,
    524: errors.LLMTimedOut,
    529: errors.LLMOverloaded,
    530: errors.LLMUnreachable,
    600: errors.LLMBadReply,
}
TRIED_AGAIN = {408, 409, 421, 423, 424, 425, 429, 498, 499, 500, 502, 503, 504, 520, 524, 529, 530}
TRIED_TWICE = {100, 600}


def error_of(status, **facts):
    return policy.to_error(policy.find(status), "no", **facts)


@pytest.mark.parametrize(("status", "kind"), MEANINGS.items())
def test_a_status_means_one_error(status, kind):
    assert type(error_of(status)) is kind


def test_every_status_means_some_error_and_never_the_callers_401():
    for status in range(100, 700):
        assert error_of(status).status in {422, 429, 502, 503, 504}, status


def test_every_finding_has_a_rule_and_only_a_callers_is_quoted():
    assert set(policy.RULES) == set(Finding)
    for finding, rule in policy.RULES.items():
        is_callers = rule.error is errors.LLMRefused
        if rule.shown is policy.Shown.QUOTE:
            assert is_callers, f"{finding}: the sentence may be about our account"
        assert (rule.logged is policy.Logged.NOTHING) is is_callers, finding
        assert (rule.logged is policy.Logged.ALARM) is issubclass(
            rule.error, errors.LLMMisconfigured
        )
        assert not (is_callers and (rule.fallback or rule.outage or rule.attempts > 1)), finding


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("finding", Finding)
def test_a_reply_with_a_status_of_success_shows_no_outage_and_is_asked_for_at_most_twice(
    finding, status
):
    error = policy.to_error(finding, "no", status_code=status)
    assert not policy.shows_outage(error)
    assert policy.attempts(error) <= 2
    paid = Reply("half", Usage(9, 4), "")
    assert policy.attempts(policy.to_error(finding, "no", status_code=200, partial=paid)) == 1


@pytest.mark.parametrize(
    ("status", "said", "found"),
    [
        (400, Finding.ACCOUNT, Finding.ACCOUNT),
        (400, Finding.BAD_KEY, Finding.BAD_KEY),
        (400, Finding.OVERLOADED, Finding.OVERLOADED),
        (401, Finding.DECLINED, Finding.BAD_KEY),
        (401, Finding.ACCOUNT, Finding.ACCOUNT),
        (402, Finding.TOO_LONG, Finding.ACCOUNT),
        (403, Finding.DECLINED, Finding.DECLINED),
        (403, Finding.RATE_LIMITED, Finding.RATE_LIMITED),
        (404, Finding.UNKNOWN_MODEL, Finding.UNKNOWN_MODEL),
        (404, Finding.REJECTED, Finding.NOT_THE_API),
        (429, Finding.ACCOUNT, Finding.ACCOUNT),
        (429, Finding.OVERLOADED, Finding.RATE_LIMITED),
        (500, Finding.TOO_LONG, Finding.TOO_LONG),
        (503, Finding.RATE_LIMITED, Finding.OVERLOADED),
        (200, Finding.OVERLOADED, Finding.OVERLOADED),
    ],
)
def test_what_the_body_says_counts_where_the_status_leaves_room(status, said, found):
    assert policy.find(status, said) is found


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
    times = {seconds: headers for headers, seconds in RETRY_AFTER}.values()  # each time once
    for word, time, remaining, chance in product(
        words, times, [-1.0, 0.1, 1.0, 6.0, 30.0], [0.0, 0.999]
    ):
        hint = policy.retry_after(time, NOW)
        error = error_of(status, retry_after=hint, should_retry=policy.should_retry(word))
        delay = policy.retry_delay(
            error, attempt=attempt, max_attempts=3, remaining=remaining, chance=chance
        )
        case = f"{status} {word | time} attempt {attempt} remaining {remaining} gave {delay}"
        said = word.get("x-should-retry")
        helps = status in TRIED_AGAIN or (status in TRIED_TWICE and attempt == 1)
        helps = {"true": True, "false": False}.get(said, helps)
        backoff = 0.5 * 2 ** (attempt - 1) * chance
        wanted = max(backoff, hint or 0)
        if not helps or attempt == 3 or wanted >= remaining:
            assert delay is None, case
        else:
            assert delay == wanted, case


def test_backoff_doubles_to_a_limit():
    def ceiling(attempt):
        return policy.retry_delay(
            error_of(500),
            attempt=attempt,
            max_attempts=900,
            remaining=1e9,
            chance=1.0,
        )

    assert [ceiling(attempt) for attempt in (1, 2, 3, 4, 5, 6, 800)] == [0.5, 1, 2, 4, 8, 8, 8]


def test_a_fallbacks_share_of_the_time_is_kept_for_it():
    assert policy.deadline_before_fallback(100, 130) == 120
    assert policy.deadline_before_fallback(130, 130) == 130


@pytest.mark.parametrize("finding", Finding)
def test_a_fallback_helps_with_all_but_the_callers_fault(finding):
    error = policy.to_error(finding, "no")
    assert policy.fallback_helps(error) is not isinstance(error, errors.LLMRefused)


def test_a_bug_of_ours_is_neither_repeated_nor_an_outage():
    bug = errors.LLMError("a bug")
    assert (policy.attempts(bug), policy.fallback_helps(bug)) == (1, False)
    assert policy.shows_outage(bug) is None


def test_a_caller_s_fault_is_a_sign_of_health_and_a_rate_limit_of_nothing():
    for status in (400, 401, 404):
        assert policy.shows_outage(error_of(status)) is False
    assert policy.shows_outage(error_of(429)) is None
    for status in (500, 503, 504, 529):
        assert policy.shows_outage(error_of(status)) is True
