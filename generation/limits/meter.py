"""One call against its caller's limits: what it reserves, and what it settles.

What an attempt reserved comes back only on proof that nothing was spent: it never reached the
provider, or was answered with an error's status. All else stays charged.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING

from generation.errors import DatabaseUnavailable
from generation.limits import estimates
from generation.limits.ledger import Short
from generation.limits.terms import Unpriced
from generation.llm.policy import is_success
from generation.llm.prices import nano
from generation.records import Charge, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.errors import LLMError
    from generation.limits.blocks import Block
    from generation.limits.ledger import Need
    from generation.limits.terms import Caller, Terms
    from generation.records import Prompt, Usage

# Without a reply, these show that the provider has not worked.
_NOTHING_SENT = frozenset(
    {
        Finding.UNREACHABLE,
        Finding.PROXY,
        Finding.UNSENDABLE,
        Finding.BUSY,
        Finding.PAUSED,
        Finding.REJECTED,
    }
)
_NOTHING = (0, 0)


class Meter:
    """Belongs to one call. Nothing of it outlives the call's task.

    It runs for each generation, so it makes few objects and calls few functions.
    """

    __slots__ = (
        "_caller",
        "_given",
        "_has_reached",
        "_held",
        "_made",
        "_once",
        "_settled",
        "_spent",
        "_target",
        "is_assumed",
        "terms",
    )

    def __init__(self, caller: Caller, terms: Terms, prompt: Prompt | None) -> None:
        """`terms` are those of the first target. Without a prompt, nobody knows what the call will
        cost: it takes the least, and settles what it was."""
        self._caller = caller
        self.terms = terms
        # Tokens of the prompt, and the most of the answer.
        self._given, self._made = (0, 1) if prompt is None else estimates.tokens(prompt)
        self._once: tuple[Need, ...] = ()  # what a call takes of once, whatever its attempts
        self._held: Sequence[Need] = ()  # for the attempt to come, or under way
        self._spent: list[Need] = []  # by attempts
        self._target: tuple[str, str] | None = None  # of an attempt under way
        self._has_reached = False
        self._settled: tuple[Charge, ...] | None = None
        self.is_assumed = False  # that all was spent which was reserved

    # --- before ---------------------------------------------------------------------------------

    def open(self) -> bool:
        """Reserve what the first attempt may cost, of what this process has leased. Returns whether
        it did."""
        terms = self.terms
        held = terms.wanted(self._given, self._made)
        if not terms.take([*terms.once, *held]):
            return False
        self._once, self._held = terms.once, held
        return True

    async def open_slowly(self, since: float) -> None:
        """The same, and ask PostgreSQL if need be. Raises `Short` or `DatabaseUnavailable`."""
        once, held = self.terms.once, self.terms.wanted(self._given, self._made)
        await self._caller.ledger.reserve([*once, *held], since)
        self._once, self._held = once, held

    async def extend(self, provider: str, model: str) -> bool:
        """Reserve what another attempt may cost. Returns whether the limits allow it."""
        ledger, held = self._caller.ledger, dict(self._held)
        taken = {block.rule.id for block, _one in self._once}
        try:
            terms = self._caller.terms(provider, model, ledger.clock())
            once = [need for need in terms.once if need[0].rule.id not in taken]
            wanted = dict(terms.wanted(self._given, self._made))
            lacking = [(block, amount - held.get(block, 0)) for block, amount in wanted.items()]
            needs = [*once, *(need for need in lacking if need[1] > 0)]
            await ledger.reserve(needs, time.monotonic())
        except (Short, Unpriced, DatabaseUnavailable):
            return False
        for block, amount in held.items():
            if (surplus := amount - wanted.get(block, 0)) > 0:
                block.settle(surplus, 0)
        self._once += tuple(once)
        self._held, self.terms = tuple(wanted.items()), terms
        return True

    def fitting_max_tokens(self, block: Block) -> int | None:
        """Returns which `max_tokens` would fit into the whole of a limit; None if none would."""
        if block.rule.is_once:
            return None
        price = self.terms.price if block.rule.unit == "usd" else None
        low, high = 0, self._made
        while low < high:
            middle = (low + high + 1) // 2
            most = self._given + middle if price is None else price.most(self._given, middle)
            if most <= block.amount:
                low = middle
            else:
                high = middle - 1
        return low or None

    # --- attempts ---------------------------------------------------------------------------

    def sent(self, provider: str, model: str) -> None:
        self._target = (provider, model)

    def answered(self, model: str, usage: Usage) -> None:
        target = self._target
        if target is None:
            return
        self._has_reached = True
        tokens = usage.total_tokens
        if not tokens or usage.is_estimated:
            self._finish(None)
            return
        price, cost = self.terms.price, None
        if price is not None and self.terms.dollars:
            if model != target[1]:  # it may answer by another name, which has a price of its own
                price = self._caller.tariff.price(target[0], model, target[1]) or price
            cost = price.charge(usage)
        self._finish((tokens, cost))

    def failed(self, error: LLMError) -> None:
        if self._target is None:  # the attempt has not begun, so its reservation is still good
            return
        status = error.status_code
        if status is not None and not is_success(status):
            self._has_reached = True
            self._finish(_NOTHING)
        elif status is None and error.finding in _NOTHING_SENT:
            self._finish(_NOTHING)
        elif error.partial is not None and not error.partial.usage.is_estimated:
            self.answered(self._target[1], error.partial.usage)
        else:
            self._has_reached = True
            self._finish(None)

    def _finish(self, used: tuple[int, int | None] | None) -> None:
        """Settle an attempt: tokens and US dollars, or None for all that was reserved."""
        self._target = None
        if used is None and self._held:
            self.is_assumed = True
        for block, reserved in self._held:
            actual = reserved
            if used is not None:
                said = used[0] if block.rule.unit == "tokens" else used[1]
                actual = reserved if said is None else said
            block.free += reserved - actual
            block.spent += actual
            self._spent.append((block, actual))
        self._held = ()

    # --- after --------------------------------------------------------------------------------

    def settle_own(self, usage: Usage, cost: Decimal | None) -> None:
        """Of a call that is not ours: what its code says that it cost."""
        self._has_reached = True
        self._target = ("", "")
        self._finish((usage.known_tokens, nano(cost or Decimal(0))))

    def settle(self) -> tuple[Charge, ...]:
        """Returns what the call's row settles. Call it when no attempt follows."""
        if self._settled is not None:
            return self._settled
        if self._target is not None:  # cancelled while the provider worked
            self._has_reached = True
            self._finish(None)
        for block, reserved in self._held:
            block.settle(reserved, 0)
        self._held = ()
        spent, is_spent = self._spent, int(self._has_reached)
        for block, _one in self._once:
            if block.rule.unit == "requests":
                block.free += 1 - is_spent
                block.spent += is_spent
                spent.append((block, is_spent))
        settled = self._settled = tuple(
            [
                {"lease": block.lease, "amount": amount}
                for block, amount in spent
                if amount and block.lease is not None
            ]
        )
        return settled

    def release(self) -> None:
        """The call's task has ended, however it did."""
        if self._settled is None:
            self.settle()
        for block, _one in self._once:
            if block.rule.unit == "in_flight":
                self._caller.ledger.free_place(block)
        self._once = ()
