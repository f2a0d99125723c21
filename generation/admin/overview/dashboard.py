"""The dashboard: what a period's figures look like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.db import OperationalError
from django.urls import reverse
from django.utils.timezone import get_current_timezone, localtime

from generation.admin.overview import spenders, sums
from generation.admin.overview.periods import DAY, PERIODS
from generation.charts import plots
from generation.charts.axes import time_axis
from generation.log_search.walk import is_cut_off
from generation.models import GenerationLog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from generation.admin.overview.periods import Period
    from generation.admin.overview.spenders import Ranking, Spent
    from generation.admin.overview.sums import Figures, Series
    from generation.charts.plots import Plot
    from generation.rollups.buckets import Span

# As the alert StaccatoRollupsLag has it: twice as long as upkeep rests after a long pass.
LATE_AFTER = timedelta(minutes=10)
DRAWN_MODELS = 5  # the rest is one bar
STATUS_COLOURS = {
    "Succeeded": "plot-1",
    "Failed": "plot-bad",
    "Timed Out": "plot-2",
    "Cancelled": "plot-6",
}


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
    change: str
    share: str  # of the largest cost, in per cent
    median: str = ""  # latency, of a model; '–' if nothing succeeded
    p95: str = ""


def context(period: Period) -> dict[str, Any]:
    """Returns what the page shows. Three statements, whatever the log's size.

    Raises Django's `OperationalError`.
    """
    with sums.reading() as (cursor, progress):
        if progress is None:
            return {"period": period, "periods": PERIODS, "is_computed": False}
        figures = sums.read(cursor, period, progress)
        ranking = spenders.rank(cursor, figures.window, figures.until)
    span = figures.window.span
    return {
        "period": period,
        "periods": PERIODS,
        "is_computed": True,
        "since": span.since,
        "until": figures.until,
        "back_to": None if figures.is_complete else progress[1],
        "is_empty": not figures.total.now.requests,
        "tiles": tiles(figures),
        "plots": _plots(figures),
        "tables": [
            {
                "title": "Models",
                "head": "Model",
                "rows": _models(figures),
                "more": "",
                "has_latency": True,
            },
            {
                "title": "Users",
                "head": "User",
                "rows": _spenders(ranking.users, "user", ranking.window.span),
                "more": _more(ranking, ranking.users, ranking.user_count, "users"),
            },
            {
                "title": "API keys",
                "head": "API key",
                "rows": _spenders(ranking.keys, "api_key", ranking.window.span),
                "more": _more(ranking, ranking.keys, ranking.key_count, "API keys"),
            },
        ],
    }


def day() -> dict[str, Any]:
    """Returns the last day in short, for the index page: two statements. Empty where there is
    nothing to show, also if the database takes too long."""
    try:
        with sums.reading() as (cursor, progress):
            figures = sums.read(cursor, DAY, progress) if progress else None
    except OperationalError as error:
        if not is_cut_off(error):
            raise
        return {}
    if figures is None or not figures.total.now.requests:
        return {}
    return {"tiles": tiles(figures), "until": figures.until, "period": DAY}


def tiles(figures: Figures) -> list[Tile]:
    """Returns the period in five figures."""
    now, whole, before = figures.total.now, figures.total.whole, figures.total.before
    latency, earlier = figures.total.latency, figures.total.latency_before
    share = now.failed / now.requests if now.requests else 0.0
    return [
        Tile(
            "Requests",
            f"{now.requests:,}",
            f"{now.retried:,} retried, {now.fell_back:,} fell back",
            change(whole.requests, before.requests),
            logs_url(figures.window.span),
        ),
        Tile(
            "Not succeeded",
            f"{100 * share:.2f} %",
            f"{now.failed:,} requests",
            change(_share(whole), _share(before)),
            f"{reverse('admin:generation_generationlog_errors')}?period={figures.period.name}",
        ),
        Tile(
            "Latency, p95",
            seconds(latency.p95) if latency else "–",
            f"p50 {seconds(latency.p50)}, p99 {seconds(latency.p99)}" if latency else "",
            change(latency.p95, earlier.p95) if latency and earlier else "",
        ),
        Tile(
            "Tokens",
            short(now.tokens),
            f"{short(now.input_tokens)} in ({short(now.cache_read_tokens)} from a cache),"
            f" {short(now.output_tokens)} out",
            change(whole.tokens, before.tokens),
        ),
        Tile(
            "Cost",
            _cost(now),
            _pricing(now) or ("all answers priced" if now.priced else ""),
            change(whole.cost, before.cost),
        ),
    ]


def _share(part: sums.Sums) -> float:
    return part.failed / part.requests if part.requests else 0.0


def _cost(part: sums.Sums | Spent) -> str:
    """Returns what is known of it: `$0` is free."""
    return money(part.cost) if part.priced else "–"


def _pricing(part: sums.Sums | Spent) -> str:
    """Returns of how many the cost is known; '' if of all."""
    billable = part.priced + part.unpriced
    return f"{part.priced:,} of {billable:,} priced" if part.unpriced else ""


def _plots(figures: Figures) -> list[Plot]:
    span, count = figures.window.span, figures.points
    axis = time_axis(span.since, span.until, get_current_timezone())
    words = dict(GenerationLog.Status.choices)
    statuses = {
        str(words.get(status, status)): _values(figures.requests_by_status.get(status, {}), count)
        for status in [*words, *(figures.requests_by_status.keys() - words.keys())]
    }
    step_s = figures.period.step * 60

    def line(which: int) -> list[plots.Point]:
        return [
            (axis.start + (number + 0.5) * step_s, latency[which] / 1000)
            for number, latency in sorted(figures.latency_by_point.items())
        ]

    return [
        plots.stacks(
            plots.Caption("Requests", f"By status, each bar {_length(figures.period.step)}."),
            axis,
            statuses,
            write=short,
            colours=STATUS_COLOURS,
        ),
        plots.lines(
            plots.Caption(
                "Latency in seconds", "Of the requests that succeeded, to the end of the LLM call."
            ),
            axis,
            {"median": line(0), "95th percentile": line(1), "99th percentile": line(2)},
        ),
        plots.stacks(
            plots.Caption("Cost in US dollars", "By model."),
            axis,
            _costs(figures, count),
            write=short,
        ),
        plots.stacks(
            plots.Caption("Tokens", "As the providers count them."),
            axis,
            {
                "input": _values(figures.input_tokens, count),
                "output": _values(figures.output_tokens, count),
            },
            write=short,
        ),
    ]


def _values(series: Series, count: int) -> list[float]:
    return [float(series.get(number, 0)) for number in range(count)]


def _costs(figures: Figures, count: int) -> dict[str, list[float]]:
    ordered = sorted(
        figures.cost_by_model, key=lambda model: figures.models[model].now.cost, reverse=True
    )
    drawn = {
        f"{provider}:{name}": _values(figures.cost_by_model[provider, name], count)
        for provider, name in ordered[:DRAWN_MODELS]
    }
    others = [_values(figures.cost_by_model[model], count) for model in ordered[DRAWN_MODELS:]]
    if others:
        drawn["others"] = [sum(values) for values in zip(*others, strict=True)]
    return drawn


def _models(figures: Figures) -> list[Row]:
    found = [(model, each) for model, each in figures.models.items() if each.now.requests]
    found.sort(key=lambda item: (item[1].now.cost, item[1].now.requests), reverse=True)
    largest = max((each.now.cost for _, each in found), default=sums.NO_COST)
    return [
        Row(
            name=name,
            aside=provider,
            url=logs_url(figures.window.span, provider=provider, model=name),
            requests=f"{each.now.requests:,}",
            failed=f"{100 * _share(each.now):.1f} %",
            tokens=short(each.now.tokens),
            cost=_cost(each.now),
            pricing=_pricing(each.now),
            change=change(each.whole.cost, each.before.cost),
            share=_percent(each.now.cost, largest),
            median=seconds(each.latency.p50) if each.latency else "–",
            p95=seconds(each.latency.p95) if each.latency else "–",
        )
        for (provider, name), each in found
    ]


def _spenders(found: Sequence[Spent], parameter: str, span: Span) -> list[Row]:
    largest = max((each.cost for each in found), default=sums.NO_COST)
    return [
        Row(
            name=name,
            aside=aside,
            url=logs_url(span, **{parameter: each.key}) if is_somebody else "",
            requests=f"{each.requests:,}",
            failed=f"{100 * each.failed / each.requests:.1f} %",
            tokens=short(each.tokens),
            cost=_cost(each),
            pricing=_pricing(each),
            change=change(each.cost_whole, each.cost_before),
            share=_percent(each.cost, largest),
        )
        for each in found
        for name, aside, is_somebody in [_who(each, parameter)]
    ]


def _who(spent: Spent, parameter: str) -> tuple[str, str, bool]:
    if parameter == "user":
        if not spent.key:
            return "nobody", "the project's own code", False
        return (spent.name, spent.key, True) if spent.name else (spent.key, "deleted", True)
    if spent.key == "0":
        return "no key", "", False
    return (spent.name, "", True) if spent.name else (f"key {spent.key}", "deleted", True)


def _more(ranking: Ranking, listed: Sequence[Spent], count: int, noun: str) -> str:
    """Returns of how many the table is, and since when: spending is summed by the hour."""
    since = localtime(ranking.window.span.since)
    of_all = f"the {len(listed)} dearest of {count:,} {noun}, " if count > len(listed) else ""
    return f"{of_all}since {since:%Y-%m-%d %H:%M}"


def logs_url(span: Span, **filters: str) -> str:
    """Returns the address of the list of logs, with these filters, from the start of a span."""
    since = localtime(span.since)
    query = {
        **filters,
        "created_at_from_0": f"{since:%Y-%m-%d}",
        "created_at_from_1": f"{since:%H:%M}",
    }
    return f"{reverse('admin:generation_generationlog_changelist')}?{urlencode(query)}"


def is_late(until: datetime, now: datetime) -> bool:
    """Whether no process has computed rollups for so long that something is wrong."""
    return now - until > LATE_AFTER


def change(now: float | Decimal, before: float | Decimal) -> str:
    """Returns by how much a figure has grown, in per cent; '' where there was none."""
    if not before:
        return ""
    percent = 100 * (float(now) / float(before) - 1)
    if abs(percent) < 0.5:  # what would be written as 0 %
        return "±0 %"
    return f"{'+' if percent > 0 else '−'}{abs(percent):,.0f} %"


def _percent(part: Decimal, whole: Decimal) -> str:
    return f"{100 * part / whole:.1f}" if whole else "0"


def _length(minutes: int) -> str:
    if minutes < 60:  # an hour
        return f"{minutes} minutes"
    hours = minutes // 60
    return f"{hours} hour{'s' if hours > 1 else ''}"


def seconds(ms: float) -> str:
    return f"{ms / 1000:.2f} s"


def money(cost: Decimal) -> str:
    """Returns US dollars, with as many digits as tell a small cost from none."""
    if not cost:
        return "$0"
    return f"${cost:,.2f}" if cost >= 1 else f"${cost:.4f}"


def short(value: float | Decimal) -> str:
    """Returns a number with three digits, e.g. 1.2M."""
    number = float(value)
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
