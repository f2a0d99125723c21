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
from generation.limits.ledger import Need, Short
from generation.llm.policy import is_success
from generation.records import Charge, Finding, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from generation.errors import LLMError
    from generation.limits.blocks import Block
    from generation.limits.ledger import Ledger
    from generation.limits.rules import Rule
    from generation.records import Prompt

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
_NOTHING = (0, Decimal(0))
_ONCE = ("requests", "in_flight")  # a call takes one of each, whatever its attempts


class Unpriced(Exception):  # an answer, not an error
    """A budget in dollars applies to a model without a price."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.name)
        self.rule = rule


class Tariff:
    """What tokens of a provider's model may cost, and did."""

    def __init__(
        self,
        most: Callable[[str, str, Usage], Decimal | None],
        cost: Callable[[str, str, Usage], Decimal | None],
    ) -> None:
        self.most = most
        self.cost = cost


class Meter:
    """Belongs to one call. Nothing of it outlives the call's task."""

    def __init__(
        self,
        ledger: Ledger,
        tariff: Tariff,
        rules: Iterable[tuple[Rule, str]],
        prompt: Prompt | None,
    ) -> None:
        """`rules` with the subject of each. Without a prompt, nobody knows what the call will
        cost: it takes the least, and settles what it was."""
        self._ledger = ledger
        self._tariff = tariff
        self._rules = tuple(rules)
        self._prompt = prompt
        self._once: dict[int, Block] = {}  # by the ids of their rules
        self._held: dict[Block, int] = {}  # for the attempt to come, or under way
        self._spent: dict[Block, int] = {}
        self._target: tuple[str, str] | None = None  # of an attempt under way
        self._has_reached = False
        self._is_settled = False
        self.is_assumed = False  # that all was spent which was reserved
        self.blocks: list[Block] = []  # of the first target

    # --- before ---------------------------------------------------------------------------------

    async def open(self, provider: str, model: str, since: float) -> None:
        """Reserve what the first attempt may cost. Raises `Short`, `Unpriced` or
        `DatabaseUnavailable`."""
        await self._reserve(provider, model, since)
        self.blocks = [*self._once.values(), *self._held]

    async def extend(self, provider: str, model: str) -> bool:
        """Reserve what another attempt may cost. Returns whether the limits allow it."""
        try:
            await self._reserve(provider, model, time.monotonic())
        except (Short, Unpriced, DatabaseUnavailable):
            return False
        return True

    async def _reserve(self, provider: str, model: str, since: float) -> None:
        covering = [each for each in self._rules if each[0].covers(provider, model)]
        once = {
            rule.id: self._ledger.block(rule, subject)
            for rule, subject in covering
            if rule.unit in _ONCE and rule.id not in self._once
        }
        wanted = self.wanted(covering, provider, model)
        needs = [Need(block, 1) for block in once.values()]
        needs += [
            Need(block, amount - self._held.get(block, 0))
            for block, amount in wanted.items()
            if amount > self._held.get(block, 0)
        ]
        if needs:
            await self._ledger.reserve(needs, since)
        self._once |= once
        for block, amount in self._held.items():
            if (surplus := amount - wanted.get(block, 0)) > 0:
                self._ledger.settle(block, surplus, 0)
        self._held = wanted

    def wanted(
        self, covering: Iterable[tuple[Rule, str]], provider: str, model: str
    ) -> dict[Block, int]:
        """Returns what an attempt may cost. Raises `Unpriced`."""
        found: dict[Block, int] = {}
        given: int | None = None
        for rule, subject in covering:
            if rule.unit in _ONCE:
                continue
            if self._prompt is None:
                amount: int | None = 1
            else:
                if given is None:
                    given = estimates.input_tokens(self._prompt)
                made = estimates.output_tokens(self._prompt)
                amount = self.price(rule, provider, model, given, made)
            if amount is None:
                if rule.is_enforced:
                    raise Unpriced(rule)
                amount = 0
            if amount or not rule.is_enforced:
                found[self._ledger.block(rule, subject)] = amount
        return found

    def price(self, rule: Rule, provider: str, model: str, given: int, made: int) -> int | None:
        if rule.unit == "tokens":
            return given + made
        most = self._tariff.most(provider, model, Usage(given, made))
        return None if most is None else estimates.nano(most)

    def fitting_max_tokens(self, block: Block, provider: str, model: str) -> int | None:
        """Returns which `max_tokens` would fit into the whole of a limit; None if none would."""
        if self._prompt is None or block.rule.unit in _ONCE:
            return None
        given = estimates.input_tokens(self._prompt)
        low, high = 0, estimates.output_tokens(self._prompt)
        while low < high:
            middle = (low + high + 1) // 2
            amount = self.price(block.rule, provider, model, given, middle)
            if amount is not None and amount <= block.amount:
                low = middle
            else:
                high = middle - 1
        return low or None

    # --- attempts ---------------------------------------------------------------------------

    def sent(self, provider: str, model: str) -> None:
        self._target = (provider, model)

    def answered(self, model: str, usage: Usage) -> None:
        if self._target is None:
            return
        provider, asked = self._target
        self._has_reached = True
        if not usage.total_tokens or usage.is_estimated:
            self._finish(None)
            return
        cost = self._tariff.cost(provider, model, usage)
        if cost is None:  # it answers by a name that has no price
            cost = self._tariff.cost(provider, asked, usage)
        self._finish((usage.total_tokens, cost))

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

    def _finish(self, used: tuple[int, Decimal | None] | None) -> None:
        """Settle an attempt: tokens and US dollars, or None for all that was reserved."""
        self._target = None
        for block, reserved in self._held.items():
            actual = reserved
            if used is None:
                self.is_assumed = True
            elif block.rule.unit == "tokens":
                actual = used[0]
            elif used[1] is not None:
                actual = estimates.nano(used[1])
            self._ledger.settle(block, reserved, actual)
            self._spent[block] = self._spent.get(block, 0) + actual
        self._held = {}

    # --- after --------------------------------------------------------------------------------

    def settle_own(self, usage: Usage, cost: Decimal | None) -> None:
        """Of a call that is not ours: what its code says that it cost."""
        self._has_reached = True
        self._target = ("", "")
        self._finish((usage.known_tokens, cost or Decimal(0)))

    def settle(self) -> tuple[Charge, ...]:
        """Returns what the call's row settles. Call it when no attempt follows."""
        if not self._is_settled:
            self._is_settled = True
            if self._target is not None:  # cancelled while the provider worked
                self._has_reached = True
                self._finish(None)
            for block, reserved in self._held.items():
                self._ledger.settle(block, reserved, 0)
            self._held = {}
            for block in self._once.values():
                if block.rule.unit == "requests":
                    self._ledger.settle(block, 1, int(self._has_reached))
                    self._spent[block] = int(self._has_reached)
        return tuple(
            Charge(block.lease, amount)
            for block, amount in self._spent.items()
            if amount and block.lease is not None
        )

    def release(self) -> None:
        """The call's task has ended, however it did."""
        self.settle()
        for block in self._once.values():
            if block.rule.unit == "in_flight":
                self._ledger.settle(block, 1, 0)
        self._once = {}
