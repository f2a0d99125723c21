"""What limits the calls of one caller to one target: found once, and used by each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from generation.limits.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from generation.limits.ledger import Ledger, Need
    from generation.records import Usage


TARGETS = 1000  # of one caller that are kept; callers choose the names of models


Rules: TypeAlias = tuple[tuple[Rule, str], ...]  # each with whose share of it a call takes


class Price(Protocol):
    """What tokens of one model cost, in billionths of a dollar."""

    @property
    def is_free(self) -> bool: ...

    def most(self, given: int, made: int) -> int:
        """Returns the most that a call of so many tokens may cost."""

    def charge(self, usage: Usage) -> int:
        """Returns what it did cost."""


class Own:
    """Of a call that is not ours, which takes the least: its code says at its end what it did
    cost."""

    is_free = False

    def most(self, _given: int, _made: int) -> int:
        return 1

    def charge(self, _usage: Usage) -> int:
        raise AssertionError("what an own call costs is said by its code")


class Tariff(Protocol):
    def price(self, provider: str, model: str, asked: str = "") -> Price | None:
        """Returns the price of a provider's model, which may have been asked by another name; None:
        nobody knows it."""


class Unpriced(Exception):  # an answer, not an error
    """A budget in dollars applies to a model without a price."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.name)
        self.rule = rule


class Headers(NamedTuple):
    """What answers say of limits, also as a server sends it."""

    texts: Mapping[str, str]
    encoded: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Headers:
        return cls(texts, tuple((name.encode(), text.encode()) for name, text in texts.items()))


NO_HEADERS = Headers.of({})


class Terms:
    """The blocks that each call takes of. Good until a window ends, or the ledger forgets a
    block."""

    __slots__ = (
        "blocks",
        "dollars",
        "epoch",
        "good_until",
        "has_shadows",
        "headers",
        "is_plain",
        "once",
        "price",
        "tokens",
    )

    def __init__(
        self, rules: Sequence[tuple[Rule, str]], ledger: Ledger, price: Price | None
    ) -> None:
        """Raises `Unpriced`."""
        blocks = [ledger.block(rule, subject) for rule, subject in rules]
        dollars = [block for block in blocks if block.rule.unit == "usd"]
        enforced = [block.rule for block in dollars if block.rule.is_enforced]
        if price is None and enforced:
            raise Unpriced(enforced[0])
        self.price = price
        self.once: tuple[Need, ...] = tuple((block, 1) for block in blocks if block.rule.is_once)
        self.tokens = tuple(block for block in blocks if block.rule.unit == "tokens")
        # What is free passes a spent budget.
        self.dollars = () if price is None or price.is_free else tuple(dollars)
        self.blocks = (*(block for block, _one in self.once), *self.tokens, *self.dollars)
        self.has_shadows = not all(block.rule.is_enforced for block in self.blocks)
        self.is_plain = all(block.is_plain for block in self.blocks)
        # By the ledger's clock: until a window ends, or others may take this process for dead.
        times = [block.good_until for block in self.blocks]
        times += [block.ends_at - ledger.ahead_s for block in self.blocks if block.ends_at]
        self.good_until = min(times, default=float("inf"))
        self.epoch = ledger.epoch
        # As answers have them, by whether the caller is a service, and of which time.
        self.headers: dict[bool, tuple[float, Headers]] = {}

    def wanted(self, given: int, made: int) -> list[Need]:
        """Returns what an attempt may take, of tokens before dollars, beside what a call takes of
        once."""
        wanted: list[Need] = []
        total = given + made
        for block in self.tokens:
            wanted.append((block, total))  # noqa: PERF401  # a comprehension is a call
        if self.dollars and self.price is not None:
            most = self.price.most(given, made)
            for block in self.dollars:
                wanted.append((block, most))  # noqa: PERF401  # see above
        return wanted

    def take(self, needs: Sequence[Need]) -> bool:
        """Take all of it or nothing, of what this process has leased. Returns whether it did; if
        not, the ledger may know better. It runs for each generation, so it looks at little."""
        if not self.is_plain:
            return False
        for block, amount in needs:
            if amount > block.free:
                return False
        for block, amount in needs:
            block.free -= amount
            block.taken += amount
        return True


class Caller:
    """All calls with the same API key, or for the same user, that the same limits concern."""

    __slots__ = ("_terms", "ledger", "rules", "tariff")

    def __init__(self, rules: Rules, ledger: Ledger, tariff: Tariff) -> None:
        self.rules = rules
        self.ledger = ledger
        self.tariff = tariff
        self._terms: dict[tuple[str, str], Terms] = {}

    def terms(self, provider: str, model: str, now: float) -> Terms:
        """`now` is by the ledger's clock. Of a call that is not ours there is no provider. Raises
        `Unpriced`."""
        target, ledger = (provider, model), self.ledger
        terms = self._terms.get(target)
        if terms is None or now > terms.good_until or terms.epoch != ledger.epoch:
            rules = [each for each in self.rules if each[0].covers(provider, model)]
            price = self.tariff.price(provider, model) if provider else Own()
            terms = Terms(rules, ledger, price)
            if len(self._terms) >= TARGETS:
                self._terms.clear()
            self._terms[target] = terms
        return terms

    def free(self, provider: str, model: str) -> Terms:
        """Returns the terms of a call that costs neither tokens nor money."""
        rules = [each for each in self.rules if each[0].is_once and each[0].covers(provider, model)]
        return Terms(rules, self.ledger, None)
