"""What a provider's answer means and what to do next. Pure: no I/O, no clock, no state."""

from __future__ import annotations

import math
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from generation.errors import (
    LLMAuthentication,
    LLMBadReply,
    LLMError,
    LLMMisconfigured,
    LLMOverloaded,
    LLMRateLimited,
    LLMRefused,
    LLMTimedOut,
    LLMUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

BACKOFF_FIRST_S = 0.5
BACKOFF_LIMIT_S = 8.0
RETRY_AFTER_LIMIT_S = 86_400.0  # a longer wait is treated as a day
SHARE_BEFORE_FALLBACK = 2 / 3  # of the remaining time; the fallback gets the rest

_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{0,9})?")

_ERROR_OF_STATUS: dict[int, type[LLMError]] = {
    401: LLMAuthentication,
    402: LLMMisconfigured,  # our account has no credit
    403: LLMAuthentication,
    404: LLMMisconfigured,  # our model or our base URL
    405: LLMMisconfigured,
    408: LLMTimedOut,
    409: LLMOverloaded,  # a lock on their side
    425: LLMOverloaded,
    429: LLMRateLimited,
    503: LLMOverloaded,
    504: LLMTimedOut,
    529: LLMOverloaded,
}


def classify(status: int) -> type[LLMError]:
    """Returns the error that an HTTP status other than 2xx stands for."""
    if status in _ERROR_OF_STATUS:
        return _ERROR_OF_STATUS[status]
    if 400 <= status < 500:  # HTTP's own classes of status
        return LLMRefused
    if 500 <= status < 600:  # HTTP's own classes of status
        return LLMUnreachable
    if 300 <= status < 400:  # HTTP's own classes of status
        return LLMMisconfigured  # a redirect: the base URL is not the one of the API
    return LLMBadReply


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


def retry_helps(error: LLMError) -> bool:
    return error.retryable if error.should_retry is None else error.should_retry


def retry_delay(
    error: LLMError, *, attempt: int, max_attempts: int, remaining: float, chance: float
) -> float | None:
    """Returns the seconds to wait before the next attempt, or None to give up.

    `attempt` counts from 1, `remaining` is the time left in seconds, `chance` is uniform in
    [0, 1): full jitter. A Retry-After is a floor. If it ends after the deadline, we give up at
    once, so that the caller learns of it early.
    """
    if attempt >= max_attempts or not retry_helps(error):
        return None
    ceiling = min(BACKOFF_LIMIT_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 16))
    delay = max(ceiling * chance, error.retry_after or 0.0)
    return delay if delay < remaining else None


def fallback_helps(error: LLMError) -> bool:
    """Another provider would reject a caller's fault, too; it may succeed with anything else."""
    return not isinstance(error, LLMRefused)


def deadline_before_fallback(now: float, deadline: float) -> float:
    """Returns when a provider's attempts and waits must end, so that another can still answer."""
    return now + (deadline - now) * SHARE_BEFORE_FALLBACK


def skips_retries(error: LLMError) -> bool:
    """If there is a fallback, give up an overloaded provider at once, and don't let a slow one
    use up the fallback's share of the time."""
    return isinstance(error, LLMOverloaded | LLMTimedOut)


def shows_outage(error: LLMError) -> bool | None:
    """Whether the provider as a whole is failing; None for a rate limit, which doesn't show it."""
    if isinstance(error, LLMRateLimited):
        return None
    return isinstance(error, LLMOverloaded | LLMUnreachable | LLMTimedOut | LLMBadReply)


def _parse_decimal(value: str) -> float | None:
    value = value.strip()
    return float(value) if _DECIMAL.fullmatch(value) else None


def _parse_http_date(value: str, now: datetime) -> float | None:
    try:
        seconds = (parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):  # garbage raises any of these
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
