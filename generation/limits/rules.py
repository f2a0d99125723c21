"""One limit as a process knows it: whom it concerns, and how much it allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from generation.limits.windows import BUDGETS, RATES, Window, window_at

if TYPE_CHECKING:
    from datetime import datetime

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
    # What follows from these, computed once.
    name: str = field(init=False)  # of the policy, for headers and answers
    refill_s: int | None = field(init=False)  # a rate refills so soon; None: it is no rate
    is_budget: bool = field(init=False)
    is_once: bool = field(init=False)  # a call takes one, whatever its attempts
    is_targeted: bool = field(init=False)  # it depends on who is asked

    def __post_init__(self) -> None:
        parts = (self.scope, self.unit, self.window, self.provider, self.model)
        derived = {
            "name": "-".join(filter(None, parts)),
            "refill_s": RATES.get(self.window),
            "is_budget": self.window in BUDGETS,
            "is_once": self.unit in {"requests", "in_flight"},
            "is_targeted": bool(self.provider),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

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
