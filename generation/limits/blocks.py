"""What this process has leased of one window of a limit, and what it has taken of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.store.limits import Ask

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime

    from generation.limits.rules import Rule
    from generation.limits.windows import Window

KEPT_S = 30.0  # idle parts of a window that is far from its end
HEADROOM = 1.5  # of the last second's demand


class Block:
    """Integers in the limit's unit. Nothing here awaits, so nothing comes between a look at
    what is free and its taking."""

    __slots__ = (
        "_largest",
        "alerted",
        "amount",
        "answer",
        "answered_at",
        "demand",
        "ends_at",
        "free",
        "given",
        "good_until",
        "granted",
        "is_plain",
        "lease",
        "left",
        "policy",
        "rule",
        "spent",
        "subject",
        "taken",
        "used_at",
        "used_elsewhere",
        "waiting",
        "window",
        "window_id",
    )

    def __init__(self, rule: Rule, subject: str, window: Window, now: float) -> None:
        self.subject = subject
        self.window = window
        self.ends_at = window.end.timestamp() if window.end else None
        self.adopt(rule)
        self.lease: int | None = None  # of a rate, none
        self.window_id: int | None = None
        self.granted = 0
        self.spent = 0
        self.given = 0  # is on its way back
        self.free = 0  # what is granted, but for what calls have spent or reserved, or is given
        self.left = 0  # for any process, when PostgreSQL last answered
        self.used_elsewhere = 0  # what others had settled then
        self.alerted = 0  # per cent
        self.answered_at: float | None = None  # None: PostgreSQL was never asked
        self.good_until = float("-inf")  # after which others may take this process for dead
        self.answer: asyncio.Future[None] | None = None  # the one that is under way
        self.waiting: list[int] = []  # what calls take that wait for the next answer
        self.taken = 0  # since the last tick
        self.demand = 0.0  # in a second
        self.used_at = now  # to a tick

    @property
    def key(self) -> tuple[int, str, datetime, int]:
        return (self.rule.id, self.subject, self.window.start, self.rule.generation)

    def adopt(self, rule: Rule) -> None:
        """Go on by a rule of the same limit, e.g. with another amount."""
        self.rule = rule
        self.amount = rule.amount_in(self.window)
        # Whether a call is let through exactly where enough is free. A limit may be set to 0 while
        # something of it is leased.
        self.is_plain = rule.is_enforced and self.amount > 0
        self.policy = ""  # as headers have it, once one does
        self._largest = max(self.amount, 1) if rule.refill_s else None

    @property
    def reserved(self) -> int:
        """What calls under way have taken."""
        return self.granted - self.spent - self.given - self.free

    @property
    def used(self) -> int:
        """What is known to be used in the whole window."""
        return self.used_elsewhere + self.spent

    def threshold(self, wanted: int) -> int:
        """Returns what must be free for a call. A rate lets a larger call through when it is full,
        and refills for as much longer after it; else such a call could never be made."""
        return wanted if self._largest is None else min(wanted, self._largest)

    def has(self, wanted: int, now: float) -> bool:
        """Whether a call can be let through without asking PostgreSQL."""
        if now > self.good_until:
            return False
        if not self.rule.is_enforced:
            return True
        return self.free >= self.threshold(wanted) and (self.amount > 0 or not wanted)

    def is_hopeless(self, wanted: int) -> bool:
        """Whether all that is left would not do."""
        enough = self.threshold(wanted)
        is_short = self.free < enough and self.left < enough - max(self.free, 0)
        is_shut = not self.amount and wanted > 0
        return self.rule.is_enforced and (is_short or is_shut)

    def settle(self, reserved: int, actual: int) -> None:
        """Replace a reservation by what was used."""
        self.free += reserved - actual
        self.spent += actual

    def give_back(self, amount: int) -> None:
        """With the next question to PostgreSQL."""
        self.given += amount
        self.free -= amount

    def draw_up(self) -> Ask:
        """Returns what to ask now, for all who wait; the first of them comes first."""
        waiting, self.waiting = self.waiting, []
        # What a call at once lacks, a running one may have; debts of others are asked for apart.
        is_at_once = self.rule.unit == "in_flight"
        free = self.free if is_at_once else max(self.free, 0)
        spare = round(max(self.demand, self.taken) * HEADROOM) - free
        return Ask(
            rule=self.rule.id,
            subject=self.subject,
            start=self.window.start,
            generation=self.rule.generation,
            amount=self.amount,
            refill_s=self.rule.refill_s,
            need=max(waiting[0] - free, 0) if waiting else 0,
            want=0 if self.given else max(sum(waiting) - free, spare, 0),
            forced=0 if is_at_once else max(-self.free, 0),
            given=self.given,
        )

    def forget(self, answer: asyncio.Future[None]) -> None:
        """It is done, so the next call that asks gets another."""
        if self.answer is answer:
            self.answer = None

    def take_answer(self, row: Any, now: float, ttl_s: float) -> None:
        """`row` is one of those that `LimitTables.ask()` returns; it is good for `ttl_s`."""
        reserved = self.reserved
        if self.rule.refill_s:
            self.granted += row.change
        else:
            # All of it, also what a lost answer has granted.
            if self.lease is None:
                # Left over from an earlier use of this window, when all that was free was given
                # back: so it was spent.
                self.spent += row.granted - row.change
            self.granted = row.granted
            self.lease = row.lease
        self.given = 0
        self.free = self.granted - self.spent - reserved
        self.window_id = row.window_id
        self.left = row.left_over
        self.used_elsewhere = row.used_elsewhere
        self.alerted = max(self.alerted, row.alerted)
        self.answered_at = now
        self.good_until = now + ttl_s

    @property
    def is_idle_budget(self) -> bool:
        """Whether a part of a budget lies here that no call has asked for since the last tick."""
        return self.rule.is_budget and self.free > 0 and not self.taken and self.answer is None

    def tick(self, now: float, processes: int) -> bool:
        """Called about once a second. Returns whether PostgreSQL should be asked: for more, or to
        take back what lies idle."""
        is_used = self.taken > 0
        if is_used:
            self.used_at = now
        self.demand = max(float(self.taken), self.demand / 4)
        self.taken = 0
        if self.answered_at is None or self.answer is not None:
            return False
        surplus = self.free - round(self.demand * HEADROOM)
        is_idle = now - self.used_at > KEPT_S
        is_scarce = self.left <= max(4 * processes * max(self.demand, 1), self.amount / 2)
        must_return = is_idle or is_scarce or not self.rule.is_budget
        if surplus > 0 and must_return and not is_used:
            self.give_back(surplus)
            return True
        is_low = self.free < self.demand and self.left > 0
        return self.free < 0 or is_low

    def is_done(self, now: float) -> bool:
        """Whether it can be forgotten: all that is free was given back."""
        return (
            now - self.used_at > 2 * KEPT_S
            and not self.reserved
            and not self.free
            and not self.given
            and self.answer is None
        )
