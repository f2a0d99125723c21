"""What an answer cost: by LLM_PRICES, or by the table that genai-prices ships. No network."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from generation.conf import Target
from generation.records import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from generation.conf import Price

_MODELS_KEPT = 256  # bounded, because the names come from replies
_ORDINARY_TOKENS = 100_000  # some models cost more in long contexts, from 128,000 tokens on


_MILLION = 1_000_000
NANO = 1_000_000_000  # billionths of a dollar
_SCALE = 1_000_000
TIERED = "by the list"  # the price of a model whose rates depend on the size of the call


class Quote(NamedTuple):
    """What tokens cost, and the price that says so."""

    cost: Decimal  # USD
    price: str  # USD per million tokens: input/output/cache read/cache write


@dataclass(frozen=True, slots=True)
class _LinearRates:
    """USD per token, for calls of ordinary size.

    The library costs more CPU than the whole LLM call, and most price lists are linear. So ask
    the library once per model, keep the rates, and multiply.
    """

    input: Decimal
    cache_read: Decimal
    cache_write: Decimal
    output: Decimal

    @classmethod
    def fit(cls, exact: Callable[[Usage], Decimal]) -> _LinearRates | None:
        """Divide four exact prices of one kind of token each. Check two mixed ones, small and
        large: returns None if the rates miss either, because the list is not linear then.
        """
        n = _ORDINARY_TOKENS // 2
        rates = cls(
            exact(Usage(n, 0)) / n,
            exact(Usage(n, 0, cache_read_tokens=n)) / n,
            exact(Usage(n, 0, cache_write_tokens=n)) / n,
            exact(Usage(0, n)) / n,
        )
        small, large = Usage(1000, 1000), Usage(n, n, n // 2, n // 2)
        is_linear = all(rates.cost(usage) == exact(usage) for usage in (small, large))
        return rates if is_linear else None

    def cost(self, usage: Usage) -> Decimal:
        given, made = usage.input_tokens or 0, usage.output_tokens or 0
        plain = given - usage.cache_read_tokens - usage.cache_write_tokens
        return (
            plain * self.input
            + usage.cache_read_tokens * self.cache_read
            + usage.cache_write_tokens * self.cache_write
            + made * self.output
        )

    @property
    def price(self) -> str:
        rates = (self.input, self.output, self.cache_read, self.cache_write)
        return "/".join(f"{(rate * _MILLION).normalize():f}" for rate in rates)


class PricedModel:
    """What one model's tokens cost."""

    def __init__(self, exact: Callable[[Usage], Decimal], rates: _LinearRates | None) -> None:
        self._exact = exact  # asks the library
        self._rates = rates
        self._price = rates.price if rates else TIERED
        # Whole numbers, of a millionth of a billionth: a bound is computed for each call.
        if rates is not None:
            self._most_input = _scaled(max(rates.input, rates.cache_write))
            self._input = _scaled(rates.input)
            self._cache_read = _scaled(rates.cache_read)
            self._cache_write = _scaled(rates.cache_write)
            self._output = _scaled(rates.output)

    def quote(self, usage: Usage) -> Quote:
        if self._rates is None or usage.known_tokens > _ORDINARY_TOKENS:
            return Quote(self._exact(usage), self._price)
        return Quote(self._rates.cost(usage), self._price)

    @property
    def is_free(self) -> bool:
        rates = self._rates
        return rates is not None and not any(
            (rates.input, rates.cache_read, rates.cache_write, rates.output)
        )

    def most(self, given: int, made: int) -> int:
        """Returns the most that a call of so many tokens may cost, in billionths of a dollar: some
        providers charge more for input that they write to their cache."""
        if self._rates is not None and given + made <= _ORDINARY_TOKENS:
            return -(-(given * self._most_input + made * self._output) // _SCALE)
        given = max(given, 1)  # of nothing, the library has no price
        plain, written = Usage(given, made), Usage(given, made, cache_write_tokens=given)
        return nano(max(self._exact(plain), self._exact(written)))

    def charge(self, usage: Usage) -> int:
        """Returns what `quote` does, in billionths of a dollar, rounded up."""
        given, made = usage.input_tokens or 0, usage.output_tokens or 0
        if self._rates is None or given + made > _ORDINARY_TOKENS:
            return nano(self._exact(usage))
        total = given * self._input + made * self._output
        if read := usage.cache_read_tokens:
            total += read * (self._cache_read - self._input)
        if write := usage.cache_write_tokens:
            total += write * (self._cache_write - self._input)
        return -(-total // _SCALE)


def nano(usd: Decimal) -> int:
    """Returns billionths of a dollar, never fewer than the amount is."""
    return int((usd * NANO).to_integral_value(ROUND_CEILING))


def _scaled(rate: Decimal) -> int:
    return nano(rate * _SCALE)


class Prices:
    """Build it at start: importing the table takes about half a second.

    `own` are LLM_PRICES; they count before the table, which is not loaded where `with_table` is
    false.
    """

    def __init__(
        self, own: Mapping[Target, Price] | None = None, *, with_table: bool = True
    ) -> None:
        self._own = {target: _own_model(price) for target, price in (own or {}).items()}
        self._model = lru_cache(maxsize=_MODELS_KEPT)(self._choose_model)
        self._has_table = with_table
        if with_table:
            from genai_prices import Usage as Tokens
            from genai_prices.data_snapshot import get_snapshot

            self._tokens = Tokens
            self._find = get_snapshot().find_provider_model

    def quote(
        self, provider: str, price_list: str, model: str, usage: Usage, asked: str = ""
    ) -> Quote | None:
        """Returns None if the price or the number of tokens is unknown.

        `price_list` is the id of a provider in the table, or the address of its API; '' if it has
        no prices. `asked`: the model's name in the request, if the answer may have another.
        """
        if not usage.total_tokens:
            return None
        found = self._model(provider, price_list, model, asked)
        return None if found is None else found.quote(usage)

    def find(
        self, provider: str, price_list: str, model: str, asked: str = ""
    ) -> PricedModel | None:
        """Returns None if the price is unknown."""
        return self._model(provider, price_list, model, asked)

    def _choose_model(
        self, provider: str, price_list: str, model: str, asked: str
    ) -> PricedModel | None:
        for name in (model, asked, "") if self._own else ():  # '': any of the provider's
            if own := self._own.get(Target(provider, name)):
                return own
        if not price_list or not self._has_table:
            return None
        return self._find_model(price_list, model) or self._find_model(price_list, asked)

    def _find_model(self, price_list: str, model: str) -> PricedModel | None:
        is_address = "://" in price_list
        try:
            provider, info = self._find(
                model,
                None,
                None if is_address else price_list,
                price_list if is_address else None,
            )
        except LookupError:
            return None

        def exact(usage: Usage) -> Decimal:
            tokens = self._tokens(
                input_tokens=usage.input_tokens or 0,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                output_tokens=usage.output_tokens or 0,
            )
            now = datetime.now(UTC)
            return info.calc_price(tokens, provider, genai_request_timestamp=now).total_price

        try:
            rates = _LinearRates.fit(exact)
        except (LookupError, ValueError):
            return None
        return PricedModel(exact, rates)


def _own_model(price: Price) -> PricedModel:
    given, made, cached = (rate / _MILLION for rate in price)
    rates = _LinearRates(given, cached, given, made)
    return PricedModel(rates.cost, rates)
