"""One call against its caller's limits: what it reserves, and what it settles.

What an attempt reserved comes back only on proof that nothing was spent: it never reached the
provider, or was answered with an error's status. All else stays charged.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from generation.errors import DatabaseUnavailable
from generation.limits import estimates
from generation.limits.ledger import Short
from generation.llm.policy import is_success
from generation.llm.prices import nano
from generation.records import Charge, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.errors import LLMError
    from generation.limits.blocks import Block
    from generation.limits.ledger import Ledger, Need
    from generation.limits.rules import Rule
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


class Unpriced(Exception):  # an answer, not an error
    """A budget in dollars applies to a model without a price."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.name)
        self.rule = rule


class Tariff(Protocol):
    """What tokens of a provider's model cost, in billionths of a dollar; None: nobody knows."""

    def most(self, provider: str, model: str, given: int, made: int) -> int | None:
        """Returns the most that a call of so many tokens may cost."""

    def charge(self, provider: str, model: str, usage: Usage) -> int | None:
        """Returns what it did cost."""


class Meter:
    """Belongs to one call. Nothing of it outlives the call's task."""

    __slots__ = (
        "_charges",
        "_has_reached",
        "_held",
        "_is_settled",
        "_ledger",
        "_once",
        "_prompt",
        "_rules",
        "_spent",
        "_target",
        "_tariff",
        "_tokens",
        "blocks",
        "is_assumed",
    )

    def __init__(
        self,
        ledger: Ledger,
        tariff: Tariff,
        rules: Sequence[tuple[Rule, str]],
        prompt: Prompt | None,
    ) -> None:
        """`rules` with the subject of each. Without a prompt, nobody knows what the call will
        cost: it takes the least, and settles what it was."""
        self._ledger = ledger
        self._tariff = tariff
        self._rules = rules
        self._prompt = prompt
        self._tokens: tuple[int, int] | None = None  # of the prompt, and the most of the answer
        self._once: dict[int, Block] = {}  # by the ids of their rules
        self._held: dict[Block, int] = {}  # for the attempt to come, or under way
        self._spent: dict[Block, int] = {}
        self._target: tuple[str, str] | None = None  # of an attempt under way
        self._has_reached = False
        self._is_settled = False
        self._charges: tuple[Charge, ...] = ()
        self.is_assumed = False  # that all was spent which was reserved
        self.blocks: tuple[Block, ...] = ()  # of the first target

    # --- before ---------------------------------------------------------------------------------

    async def open(self, provider: str, model: str, since: float) -> None:
        """Reserve what the first attempt may cost. Raises `Short`, `Unpriced` or
        `DatabaseUnavailable`."""
        await self._reserve(provider, model, since)
        self.blocks = (*self._once.values(), *self._held)

    async def extend(self, provider: str, model: str) -> bool:
        """Reserve what another attempt may cost. Returns whether the limits allow it."""
        try:
            await self._reserve(provider, model, time.monotonic())
        except (Short, Unpriced, DatabaseUnavailable):
            return False
        return True

    async def _reserve(self, provider: str, model: str, since: float) -> None:
        once, wanted, needs = self._needs(provider, model)
        if needs:
            await self._ledger.reserve(needs, since)
        self._once |= once
        for block, amount in self._held.items():
            if (surplus := amount - wanted.get(block, 0)) > 0:
                block.settle(surplus, 0)
        self._held = wanted

    def _needs(
        self, provider: str, model: str
    ) -> tuple[dict[int, Block], dict[Block, int], list[Need]]:
        """Returns what an attempt takes: of blocks that a call takes of once, of all others, and
        which of that is not reserved yet. Raises `Unpriced`."""
        once: dict[int, Block] = {}
        wanted: dict[Block, int] = {}
        needs: list[Need] = []
        for rule, subject in self._rules:
            if rule.is_targeted and not rule.covers(provider, model):
                continue
            block = self._ledger.block(rule, subject)
            if rule.is_once:
                if rule.id not in self._once:
                    once[rule.id] = block
                    needs.append((block, 1))
                continue
            amount = self._amount(rule, provider, model)
            if amount or not rule.is_enforced:
                wanted[block] = amount
                lacking = amount - self._held.get(block, 0)
                if lacking > 0:
                    needs.append((block, lacking))
        return once, wanted, needs

    def _amount(self, rule: Rule, provider: str, model: str) -> int:
        if self._prompt is None:
            return 1
        if self._tokens is None:
            given = estimates.input_tokens(self._prompt)
            self._tokens = (given, estimates.output_tokens(self._prompt))
        amount = self._price(rule, provider, model, *self._tokens)
        if amount is None:
            if rule.is_enforced:
                raise Unpriced(rule)
            return 0
        return amount

    def _price(self, rule: Rule, provider: str, model: str, given: int, made: int) -> int | None:
        if rule.unit == "tokens":
            return given + made
        return self._tariff.most(provider, model, given, made)

    def fitting_max_tokens(self, block: Block, provider: str, model: str) -> int | None:
        """Returns which `max_tokens` would fit into the whole of a limit; None if none would."""
        if self._tokens is None or block.rule.is_once:
            return None
        given, high = self._tokens
        low = 0
        while low < high:
            middle = (low + high + 1) // 2
            amount = self._price(block.rule, provider, model, given, middle)
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
        cost = self._tariff.charge(provider, model, usage)
        if cost is None:  # it answers by a name that has no price
            cost = self._tariff.charge(provider, asked, usage)
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

    def _finish(self, used: tuple[int, int | None] | None) -> None:
        """Settle an attempt: tokens and US dollars, or None for all that was reserved."""
        self._target = None
        for block, reserved in self._held.items():
            actual = reserved
            if used is None:
                self.is_assumed = True
            elif block.rule.unit == "tokens":
                actual = used[0]
            elif used[1] is not None:
                actual = used[1]
            block.settle(reserved, actual)
            self._spent[block] = self._spent.get(block, 0) + actual
        self._held = {}

    # --- after --------------------------------------------------------------------------------

    def settle_own(self, usage: Usage, cost: Decimal | None) -> None:
        """Of a call that is not ours: what its code says that it cost."""
        self._has_reached = True
        self._target = ("", "")
        self._finish((usage.known_tokens, nano(cost or Decimal(0))))

    def settle(self) -> tuple[Charge, ...]:
        """Returns what the call's row settles. Call it when no attempt follows."""
        if not self._is_settled:
            self._is_settled = True
            if self._target is not None:  # cancelled while the provider worked
                self._has_reached = True
                self._finish(None)
            for block, reserved in self._held.items():
                block.settle(reserved, 0)
            self._held = {}
            for block in self._once.values():
                if block.rule.unit == "requests":
                    block.settle(1, int(self._has_reached))
                    self._spent[block] = int(self._has_reached)
            self._charges = tuple(
                [
                    Charge(block.lease, amount)
                    for block, amount in self._spent.items()
                    if amount and block.lease is not None
                ]
            )
        return self._charges

    def release(self) -> None:
        """The call's task has ended, however it did."""
        self.settle()
        for block in self._once.values():
            if block.rule.unit == "in_flight":
                self._ledger.free_place(block)
        self._once = {}
