"""A limit does not allow a call: no LLM is called, and no row is left.

Status 429 says that waiting cures it, and when; 403 that a person has to act.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from generation.errors.base import StaccatoError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SLEEP_S = 60  # for a longer wait, a client should give up


class LimitReached(StaccatoError):
    """A limit is reached."""

    status = 429
    slug = "limit-reached"
    is_paced = True
    is_spent: ClassVar[bool] = False  # for the rest of its window

    def __init__(
        self,
        detail: str,
        *,
        retry_after: float | None = None,
        members: Mapping[str, Any] | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.members = dict(members or {})
        self.more_headers = dict(more_headers or {})

    @property
    def is_worth_a_retry(self) -> bool:
        return self.status == 429 and not self.is_spent and (self.retry_after or 0) <= MAX_SLEEP_S

    @property
    def headers(self) -> dict[str, str]:
        advice = {"x-should-retry": "true" if self.is_worth_a_retry else "false"}
        return {**super().headers, **advice, **self.more_headers}


class RateLimited(LimitReached):
    """Too much was asked for in a short time."""

    slug = "rate-limited"
    retryable = True


class TooManyAtOnce(LimitReached):
    """Too many requests run at once."""

    slug = "too-many-at-once"
    retryable = True


class BudgetReserved(LimitReached):
    """What is left of a budget is reserved by requests under way."""

    slug = "budget-reserved"
    retryable = True


class BudgetExhausted(LimitReached):
    """A budget is used up until its next window begins."""

    slug = "budget-exhausted"
    is_spent = True


class BudgetClosed(LimitReached):
    """A limit allows nothing, now or later."""

    status = 403
    slug = "budget-closed"


class RequestExceedsLimit(LimitReached):
    """The request may cost more than the whole of a limit."""

    status = 403
    slug = "request-exceeds-limit"


class ModelUnpriced(LimitReached):
    """A budget in US dollars applies, and the model has no known price."""

    status = 403
    slug = "model-unpriced"
