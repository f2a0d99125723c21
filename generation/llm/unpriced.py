"""Which of the models that may be asked have no price, for those who set budgets in dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation.llm.offer import Offer, with_model
from generation.llm.prices import Prices
from generation.llm.providers import registry

if TYPE_CHECKING:
    from generation.conf import Settings, Target


def unpriced_targets(settings: Settings) -> tuple[Target, ...]:
    """Returns those of all that the service offers or falls back to. Loads the price list, which
    takes half a second."""
    fallbacks = (with_model(settings, target) for target in settings.llm_fallbacks)
    targets = dict.fromkeys((*Offer(settings).targets, *fallbacks))
    lists = {target.provider: _price_list(settings, target.provider) for target in targets}
    prices = Prices(settings.llm_prices, with_table=any(lists.values()))
    return tuple(
        target
        for target in targets
        if prices.find(target.provider, lists[target.provider], target.model) is None
    )


def _price_list(settings: Settings, provider: str) -> str:
    found = registry.find(settings, provider)
    return getattr(found, "price_list", "") or found.address(settings)
