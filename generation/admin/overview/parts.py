"""What the pages over a period are made of: tiles, charts and rows of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.admin.overview.writing import change, cost, failed_share, pricing, short
from generation.charts import plots

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from generation.admin.overview.spenders import Spent
    from generation.admin.overview.sums import Model, Series, Sums
    from generation.charts.axes import Axis
    from generation.charts.plots import Plot

DRAWN_MODELS = 5  # the rest is one bar


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure, and how it has changed against the period before."""

    title: str
    value: str
    aside: str
    change: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Of a table: a model, a user or an API key."""

    name: str
    aside: str
    url: str
    requests: str
    failed: str
    tokens: str
    cost: str
    pricing: str
    share: str  # of the largest cost, in per cent
    spark: str  # the cost over time, as SVG
    spark_url: str = ""
    change: str = ""
    median: str = ""  # latency, of a model; '–' if nothing succeeded
    p95: str = ""


def row(each: Sums | Spent, largest: Decimal, name: str, aside: str, **others: str) -> Row:
    """Returns a row, of which `largest` is the highest cost in its table."""
    return Row(
        name=name,
        aside=aside,
        requests=f"{each.requests:,}",
        failed=f"{100 * failed_share(each):.1f} %",
        tokens=short(each.tokens),
        cost=cost(each),
        pricing=pricing(each),
        share=f"{100 * each.cost / largest:.1f}" if largest else "0",
        **others,
    )


def cost_tile(now: Sums, whole: Sums, before: Sums) -> Tile:
    """`whole` is of `now` what is over, to be compared with `before`."""
    aside = pricing(now) or ("all answers priced" if now.priced else "")
    return Tile("Cost", cost(now), aside, change(whole.cost, before.cost))


def values(series: Series, count: int) -> list[float]:
    """Returns those of a chart's points, of which those without any are 0."""
    return [float(series.get(number, 0)) for number in range(count)]


def by_model(costs: Mapping[Model, Series], count: int) -> dict[str, list[float]]:
    """Returns the costs of those that cost most, and of the others together."""
    ordered = sorted(costs, key=lambda model: sum(costs[model].values()), reverse=True)
    drawn = {
        f"{provider}:{name}": values(costs[provider, name], count)
        for provider, name in ordered[:DRAWN_MODELS]
    }
    others = [values(costs[model], count) for model in ordered[DRAWN_MODELS:]]
    if others:
        drawn["others"] = [sum(each) for each in zip(*others, strict=True)]
    return drawn


def cost_plot(axis: Axis, costs: Mapping[str, list[float]], explanation: str = "By model.") -> Plot:
    return plots.stacks(plots.Caption("Cost in US dollars", explanation), axis, costs, write=short)


def tokens_plot(axis: Axis, tokens: Mapping[str, Series], count: int) -> Plot:
    """`tokens`: those of `input` and `output`."""
    return plots.stacks(
        plots.Caption("Tokens", "As the providers count them."),
        axis,
        {label: values(series, count) for label, series in tokens.items()},
        write=short,
    )
