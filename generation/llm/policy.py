"""What a provider's answer means and what to do next. Pure: no I/O, no clock, no state.

A provider's adapter says what a reply's body shows (a `Finding`), or nothing. The tables here say
what a status shows, which of the two to believe, and what follows from it.
"""

from __future__ import annotations

import math
import re
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

from generation.errors import (
    LLMAuthentication,
    LLMBadReply,
    LLMBusy,
    LLMCircuitOpen,
    LLMError,
    LLMMisconfigured,
    LLMOverloaded,
    LLMRateLimited,
    LLMRefused,
    LLMTimedOut,
    LLMUnreachable,
    StreamBroken,
    StreamIdle,
    StreamTooLong,
)
from generation.records import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

BACKOFF_FIRST_S = 0.5
BACKOFF_LIMIT_S = 8.0
RETRY_AFTER_LIMIT_S = 86_400.0  # a longer wait is treated as a day
SHARE_BEFORE_FALLBACK = 2 / 3  # of the remaining time; the fallback gets the rest

_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{0,9})?")


class Shown(Enum):
    """What the caller sees of it, apart from the error's class."""

    QUOTE = auto()  # the provider's own sentence, because the caller can act on it
    STATUS = auto()  # that it failed; the sentence may be about our account


class Logged(Enum):
    """What the log says about it."""

    NOTHING = auto()  # the sentence may hold the caller's text, and no operator has to act
    COUNT = auto()  # how often in a while
    ALARM = auto()  # an operator has to act: once a minute, with the provider's sentence


class Rule(NamedTuple):
    """What follows from a finding."""

    error: type[LLMError]
    attempts: int  # at most; LLM_MAX_ATTEMPTS may be fewer
    fallback: bool  # whether another target is asked
    outage: bool | None  # of the whole provider; None: it shows neither
    shown: Shown
    logged: Logged


_ONCE, _TWICE, _OFTEN = 1, 2, 1_000
_YES, _NO = True, False
_QUOTE, _STATUS = Shown
_NOTHING, _COUNT, _ALARM = Logged
F = Finding

# finding: (error, attempts, fallback?, outage?, the caller reads, the log says)  # the reason
RULES: dict[Finding, Rule] = {
    # The caller's: no alarm, no repetition, a sign of health.
    F.DECLINED: Rule(LLMRefused, _ONCE, _NO, _NO, _QUOTE, _NOTHING),  # don't shop for a willing one
    F.TOO_LONG: Rule(LLMRefused, _ONCE, _NO, _NO, _QUOTE, _NOTHING),  # the caller can shorten it
    F.REJECTED: Rule(LLMRefused, _ONCE, _NO, _NO, _QUOTE, _NOTHING),  # most likely in any provider
    F.CUT_OFF: Rule(LLMRefused, _ONCE, _NO, _NO, _STATUS, _NOTHING),  # paid; more tokens help
    # Ours: repetition can't help, another target can, an operator has to know.
    F.ACCOUNT: Rule(
        LLMMisconfigured, _ONCE, _YES, _NO, _STATUS, _ALARM
    ),  # our bill is our business
    F.BAD_KEY: Rule(LLMAuthentication, _ONCE, _YES, _NO, _STATUS, _ALARM),
    F.UNKNOWN_MODEL: Rule(LLMMisconfigured, _ONCE, _YES, _NO, _STATUS, _ALARM),  # we offer it
    F.OUR_PARAMETER: Rule(LLMMisconfigured, _ONCE, _YES, _NO, _STATUS, _ALARM),
    F.NOT_THE_API: Rule(LLMMisconfigured, _ONCE, _YES, _NO, _STATUS, _ALARM),  # our base URL
    F.PROXY: Rule(LLMMisconfigured, _ONCE, _YES, _NO, _STATUS, _ALARM),  # our network
    F.UNSENDABLE: Rule(LLMMisconfigured, _ONCE, _YES, _NO, _STATUS, _ALARM),  # e.g. the URL
    # The provider's, for the moment.
    F.RATE_LIMITED: Rule(LLMRateLimited, _OFTEN, _YES, None, _STATUS, _COUNT),  # by who asks
    F.OVERLOADED: Rule(LLMOverloaded, _OFTEN, _YES, _YES, _STATUS, _COUNT),
    F.FAILED: Rule(LLMUnreachable, _OFTEN, _YES, _YES, _STATUS, _COUNT),
    F.TIMED_OUT: Rule(LLMTimedOut, _OFTEN, _YES, _YES, _STATUS, _COUNT),
    F.UNREACHABLE: Rule(LLMUnreachable, _OFTEN, _YES, _YES, _STATUS, _COUNT),
    F.BUSY: Rule(LLMBusy, _ONCE, _YES, None, _STATUS, _COUNT),  # it has waited for a place
    F.PAUSED: Rule(LLMCircuitOpen, _ONCE, _YES, None, _STATUS, _COUNT),  # until a probe is answered
    # A reply of status 2xx, most likely paid for.
    F.EMPTY: Rule(LLMBadReply, _ONCE, _YES, _NO, _STATUS, _COUNT),  # another model may do better
    F.BROKEN_OFF: Rule(LLMUnreachable, _ONCE, _YES, None, _STATUS, _COUNT),  # half was paid for
    F.UNREADABLE: Rule(LLMBadReply, _ONCE, _YES, None, _STATUS, _COUNT),  # it may hold an answer
    F.GARBLED: Rule(LLMBadReply, _TWICE, _YES, None, _STATUS, _COUNT),  # it can't: likely not paid
}

# What a status shows where the body says nothing.
_FINDING_OF_STATUS: dict[int, Finding] = {
    401: F.BAD_KEY,
    402: F.ACCOUNT,  # no credit
    403: F.BAD_KEY,  # it lacks a permission
    404: F.NOT_THE_API,  # our base URL, or our model
    405: F.NOT_THE_API,
    406: F.OUR_PARAMETER,  # our Accept
    407: F.PROXY,  # it wants credentials
    408: F.TIMED_OUT,
    409: F.OVERLOADED,  # a lock on their side
    410: F.UNKNOWN_MODEL,  # retired
    411: F.OUR_PARAMETER,  # how we frame the body
    413: F.TOO_LONG,
    415: F.OUR_PARAMETER,  # our Content-Type
    421: F.FAILED,  # misdirected: another connection may arrive elsewhere
    423: F.OVERLOADED,  # locked
    424: F.FAILED,  # text-generation-inference: the model failed while it generated
    425: F.OVERLOADED,  # too early
    426: F.NOT_THE_API,  # e.g. http where https is wanted
    429: F.RATE_LIMITED,
    431: F.OUR_PARAMETER,  # our headers
    444: F.FAILED,  # nginx: closed without an answer
    451: F.ACCOUNT,  # not served where we are
    495: F.BAD_KEY,  # nginx: our certificate
    496: F.BAD_KEY,
    497: F.NOT_THE_API,  # nginx: http on the port of https
    498: F.OVERLOADED,  # Groq: no capacity left for this tier
    499: F.FAILED,  # they cancelled it: we did not leave
    501: F.NOT_THE_API,
    503: F.OVERLOADED,
    504: F.TIMED_OUT,
    505: F.NOT_THE_API,
    507: F.OVERLOADED,  # no storage
    511: F.PROXY,  # a network that wants a login
    524: F.TIMED_OUT,  # Cloudflare: the origin took 100 s; 520 to 530 are failures behind it
    529: F.OVERLOADED,
    598: F.TIMED_OUT,  # proxies: read timeout
    599: F.TIMED_OUT,  # proxies: connect timeout
}

_OURS = frozenset(
    {F.ACCOUNT, F.BAD_KEY, F.UNKNOWN_MODEL, F.OUR_PARAMETER, F.NOT_THE_API, F.DECLINED, F.TOO_LONG}
)
# Which findings of a body a status leaves room for. Other statuses, 400 above all, for any.
_ROOM: dict[int, frozenset[Finding]] = {
    401: frozenset({F.ACCOUNT}),
    402: frozenset(),
    407: frozenset(),
    429: frozenset({F.ACCOUNT, F.TOO_LONG}),  # unpaid: waiting can't help; nor with "too large"
}


_FINDING_OF_ERROR: dict[type[LLMError], Finding] = {}
for _finding, _rule in RULES.items():
    _FINDING_OF_ERROR.setdefault(_rule.error, _finding)


def finding_of(error: type[LLMError]) -> Finding | None:
    """Returns what an error of this class shows where its provider says no more than that."""
    return _FINDING_OF_ERROR.get(error)


def is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300  # 2xx


def find(status: int, said: Finding | None = None) -> Finding:
    """Returns what a reply shows, of its status and of what its body says."""
    by_status = _of_status(status)
    if said is None:
        return by_status
    if status in _ROOM:
        return said if said in _ROOM[status] else by_status
    if status == 404 or 500 <= status < 600:  # HTTP's own statuses
        return said if said in _OURS else by_status
    return said


def _of_status(status: int) -> Finding:
    if status in _FINDING_OF_STATUS:
        return _FINDING_OF_STATUS[status]
    if 300 <= status < 400:  # HTTP's own classes of status
        return F.NOT_THE_API  # a redirect
    if 400 <= status < 500:  # HTTP's own classes of status
        return F.REJECTED
    if 500 <= status < 600:  # HTTP's own classes of status
        return F.FAILED
    if is_success(status):
        return F.UNREADABLE  # an error without a known kind
    return F.GARBLED  # HTTP has no such status


def to_error(finding: Finding, detail: str, **facts: Any) -> LLMError:
    """Returns the error that a finding amounts to. `facts` are `LLMError`'s."""
    return RULES[finding].error(detail, finding=finding, **facts)


def stream_broken(detail: str, **facts: Any) -> LLMError:
    """Returns the error of a stream that ended after its first words and before its stop reason."""
    return StreamBroken(detail, finding=F.BROKEN_OFF, **facts)


def stream_timed_out(detail: str, *, is_idle: bool, **facts: Any) -> LLMError:
    """Returns the error of a stream that fell silent in the middle, or that went on too long."""
    return (StreamIdle if is_idle else StreamTooLong)(detail, finding=F.TIMED_OUT, **facts)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Returns the seconds that the provider asks us to wait; None if it sends nothing usable.

    `retry-after-ms` is the finer of the two headers and wins. Never negative, never above a day.
    """
    milliseconds = _parse_decimal(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, RETRY_AFTER_LIMIT_S)
    value = headers.get("retry-after", "").strip()
    seconds = _parse_decimal(value)
    if seconds is None:
        seconds = _parse_http_date(value, now)
    return None if seconds is None else min(seconds, RETRY_AFTER_LIMIT_S)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Returns whether the provider says that a retry helps; None if it doesn't say."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def attempts(error: LLMError) -> int:
    """Returns how many attempts may end like this."""
    if error.finding is None:
        return _ONCE
    limit = RULES[error.finding].attempts
    if is_success(error.status_code):  # paid, unless it is an error without any of an answer
        return _ONCE if error.partial is not None else min(limit, _TWICE)
    if error.should_retry is not None:
        return _OFTEN if error.should_retry else _ONCE
    return limit


def retry_delay(
    error: LLMError, *, attempt: int, max_attempts: int, remaining: float, chance: float
) -> float | None:
    """Returns the seconds to wait before the next attempt, or None to give up.

    `attempt` counts from 1, `remaining` is the time left in seconds, `chance` is uniform in
    [0, 1): full jitter. A Retry-After is a floor. If it ends after the deadline, we give up at
    once, so that the caller learns of it early.
    """
    if attempt >= min(max_attempts, attempts(error)):
        return None
    ceiling = min(BACKOFF_LIMIT_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 16))
    delay = max(ceiling * chance, error.retry_after or 0.0)
    return delay if delay < remaining else None


def fallback_helps(error: LLMError) -> bool:
    return error.finding is not None and RULES[error.finding].fallback


def deadline_before_fallback(now: float, deadline: float) -> float:
    """Returns when a provider's attempts and waits must end, so that another can still answer."""
    return now + (deadline - now) * SHARE_BEFORE_FALLBACK


def skips_retries(error: LLMError) -> bool:
    """If there is a fallback, give up an overloaded provider at once, and don't let a slow one
    use up the fallback's share of the time."""
    return isinstance(error, LLMOverloaded | LLMTimedOut)


def shows_outage(error: LLMError) -> bool | None:
    """Whether the provider as a whole is failing; None if the error doesn't show it.

    A reply with a status of success never does: what makes it unusable may be one caller's prompt.
    """
    if error.finding is None:
        return None
    outage = RULES[error.finding].outage
    return None if outage and is_success(error.status_code) else outage


def quotes(error: LLMError) -> bool:
    """Whether the caller may read the provider's own sentence."""
    return error.finding is not None and RULES[error.finding].shown is Shown.QUOTE


def logged(error: LLMError) -> Logged:
    """What the log says about it; of a bug of ours, its traceback says all."""
    return Logged.NOTHING if error.finding is None else RULES[error.finding].logged


def _parse_decimal(value: str) -> float | None:
    value = value.strip()
    return float(value) if _DECIMAL.fullmatch(value) else None


def _parse_http_date(value: str, now: datetime) -> float | None:
    try:
        seconds = (parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):  # garbage raises any of these
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
