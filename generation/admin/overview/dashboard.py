"""The dashboard: what a period's figures look like."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import OperationalError
from django.urls import reverse
from django.utils.timezone import get_current_timezone, localtime

from generation.admin.overview import spenders, sums
from generation.admin.overview.parts import (
    Row,
    Tile,
    by_model,
    cost_plot,
    cost_tile,
    row,
    tokens_plot,
    values,
)
from generation.admin.overview.periods import DAY, PERIODS
from generation.admin.overview.writing import (
    change,
    failed_share,
    length,
    logs_url,
    requests,
    seconds,
    short,
    spending_url,
)
from generation.charts import plots
from generation.charts.axes import time_axis
from generation.charts.sparklines import spark
from generation.log_search.walk import is_cut_off
from generation.models import GenerationLog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from generation.admin.overview.periods import Period
    from generation.admin.overview.spenders import Ranking, Spent
    from generation.admin.overview.sums import Figures
    from generation.charts.plots import Plot

# As the alert StaccatoRollupsLag has it: twice as long as upkeep rests after a long pass.
LATE_AFTER = timedelta(minutes=10)
STATUS_COLOURS = {
    "Succeeded": "plot-1",
    "Failed": "plot-bad",
    "Timed Out": "plot-2",
    "Cancelled": "plot-6",
}


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
                "has_change": True,
                "has_latency": True,
            },
            {
                "title": "Users",
                "head": "User",
                "rows": _spenders(ranking, ranking.users, "user", period),
                "more": _more(ranking, ranking.users, ranking.user_count, "users"),
                "has_change": True,
            },
            {
                "title": "API keys",
                "head": "API key",
                "rows": _spenders(ranking, ranking.keys, "api_key", period),
                "more": _more(ranking, ranking.keys, ranking.key_count, "API keys"),
                "has_change": True,
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
            f"{100 * failed_share(now):.2f} %",
            requests(now.failed),
            change(failed_share(whole), failed_share(before)),
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
        cost_tile(now, whole, before),
    ]


def _plots(figures: Figures) -> list[Plot]:
    span, count = figures.window.span, figures.points
    axis = time_axis(span.since, span.until, get_current_timezone())
    words = dict(GenerationLog.Status.choices)
    statuses = {
        str(words.get(status, status)): values(figures.requests_by_status.get(status, {}), count)
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
            plots.Caption("Requests", f"By status, each bar {length(figures.period.step)}."),
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
        cost_plot(axis, by_model(figures.cost_by_model, count)),
        tokens_plot(axis, {"input": figures.input_tokens, "output": figures.output_tokens}, count),
    ]


def _models(figures: Figures) -> list[Row]:
    found = [(model, each) for model, each in figures.models.items() if each.now.requests]
    found.sort(key=lambda item: (item[1].now.cost, item[1].now.requests), reverse=True)
    largest = max((each.now.cost for _, each in found), default=sums.NO_COST)
    return [
        row(
            each.now,
            largest,
            name,
            provider,
            url=logs_url(figures.window.span, provider=provider, model=name),
            spark=spark(figures.cost_by_model.get((provider, name), {}), figures.points),
            change=change(each.whole.cost, each.before.cost),
            median=seconds(each.latency.p50) if each.latency else "–",
            p95=seconds(each.latency.p95) if each.latency else "–",
        )
        for (provider, name), each in found
    ]


def _spenders(
    ranking: Ranking, found: Sequence[Spent], parameter: str, period: Period
) -> list[Row]:
    largest = max((each.cost for each in found), default=sums.NO_COST)
    rows = []
    for each in found:
        who = spenders.named(parameter, each.key, each.name)
        url = logs_url(ranking.window.span, **{parameter: each.key}) if who.is_somebody else ""
        rows.append(
            row(
                each,
                largest,
                who.name,
                who.aside,
                url=url,
                spark=spark(each.cost_by_point, ranking.points),
                spark_url=spending_url(period, parameter, each.key),
                change=change(each.cost_whole, each.cost_before),
            )
        )
    return rows


def _more(ranking: Ranking, listed: Sequence[Spent], count: int, noun: str) -> str:
    """Returns of how many the table is, and since when: spending is summed by the hour."""
    since = localtime(ranking.window.span.since)
    of_all = f"the {len(listed)} dearest of {count:,} {noun}, " if count > len(listed) else ""
    return f"{of_all}since {since:%Y-%m-%d %H:%M}"


def is_late(until: datetime, now: datetime) -> bool:
    """Whether no process has computed rollups for so long that something is wrong."""
    return now - until > LATE_AFTER
