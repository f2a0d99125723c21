"""One limit as a process knows it: whom it concerns, and how much it allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from generation.limits.windows import BUDGETS, RATES, Window, window_at

if TYPE_CHECKING:
    from datetime import datetime

NANO = 1_000_000_000  # US dollars are counted in billionths
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of Limit."""

    id: int
    scope: str  # key, user or all
    owner: str  # the key's or user's id; '': each, or all
    provider: str  # '': any
    model: str  # '': any
    unit: str  # requests, tokens, usd (billionths) or in_flight
    amount: int
    window: str = ""
    zone: ZoneInfo = _UTC
    is_enforced: bool = True
    extra: int = 0
    extra_start: datetime | None = None
    generation: int = 0
    name: str = field(init=False)  # of the policy, for headers and answers

    def __post_init__(self) -> None:
        parts = (self.scope, self.unit, self.window, self.provider, self.model)
        object.__setattr__(self, "name", "-".join(filter(None, parts)))

    @property
    def refill_s(self) -> int | None:
        """In how many seconds a rate refills as much as `amount`; None: it is no rate."""
        return RATES.get(self.window)

    @property
    def is_budget(self) -> bool:
        return self.window in BUDGETS

    @property
    def is_targeted(self) -> bool:
        """Whether it depends on who is asked."""
        return bool(self.provider)

    def covers(self, provider: str, model: str) -> bool:
        return self.provider in {"", provider} and self.model in {"", model}

    def subject(self, key_id: object, user_id: object) -> str:
        """Returns whose share of it a call takes; '' where it is one for all."""
        if self.scope == "all" or self.owner:
            return ""
        return str(key_id if self.scope == "key" else user_id)

    def window_at(self, moment: datetime) -> Window:
        return window_at(self.window, self.zone, moment)

    def amount_in(self, window: Window) -> int:
        """Returns the amount, with the override that holds in this window."""
        return self.amount + (self.extra if self.extra_start == window.start else 0)
