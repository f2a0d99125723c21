"""One user's or API key's spending over a period, from the rollups of those who spend."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib.auth import get_user_model
from django.http import Http404
from django.utils.timezone import get_current_timezone

from generation import conf, user_keys
from generation.admin.overview import spenders, sums
from generation.admin.overview.parts import (
    Tile,
    by_model,
    cost_plot,
    cost_tile,
    row,
    tokens_plot,
    values,
)
from generation.admin.overview.periods import PERIODS, hours_of, window
from generation.admin.overview.runs import LOOKUPS, POINT, lookups
from generation.admin.overview.sums import NOTHING, Sums
from generation.admin.overview.writing import (
    change,
    failed_share,
    length,
    logs_url,
    requests,
    short,
)
from generation.charts import plots
from generation.charts.axes import time_axis
from generation.charts.sparklines import spark
from generation.models import ApiKey, Spender
from generation.rollups.buckets import MINUTE, SPEND_LENGTH, Span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from generation.admin.overview.parts import Row
    from generation.admin.overview.periods import Period, Window
    from generation.admin.overview.sums import Model, Series
    from generation.charts.plots import Plot

KINDS = {"user": Spender.Kind.USER, "api_key": Spender.Kind.KEY}  # by their names in an address
NOUNS = {"user": "user", "api_key": "API key"}
COLOURS = {"succeeded": "plot-1", "not succeeded": "plot-bad"}

_COLUMNS = "requests, failed, priced, unpriced, input_tokens, output_tokens, cost_usd"
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _COLUMNS.split(", "))
# Of a user, the models come through the key of `generation_spend`, hour by hour. Of an API key they
# would take the rows of all users, so they are left out.
_SPENT = f"""
SELECT part, point, NULL AS provider, NULL AS model, {_SUMS}, NULL AS costs
{LOOKUPS.format(spender="(VALUES (%(kind)s, %(key)s)) AS spender (kind, key)")}
GROUP BY part, point
UNION ALL
SELECT 'model', NULL, provider, model, {_SUMS},
    json_agg(json_build_array(point, cost_usd))::text
FROM (
    SELECT provider, model, point, {_SUMS}
    FROM (
        SELECT bucket, {POINT} AS point
        FROM generate_series(
            %(since)s::timestamptz, %(until)s::timestamptz - interval '1 hour', interval '1 hour'
        ) AS hours (bucket)
        WHERE %(kind)s = 'user' OFFSET 0
    ) AS wanted
    CROSS JOIN LATERAL (
        SELECT * FROM generation_spend AS each
        WHERE each.hour = wanted.bucket AND each.user_key = %(key)s OFFSET 0
    ) AS found
    GROUP BY provider, model, point
) AS each
GROUP BY provider, model
"""  # noqa: S608  # made of our own constants


@dataclass(slots=True)
class Spending:
    """Of one user or API key."""

    window: Window  # in hours
    drawn: Span  # in points of `step` minutes, of which the last may not be over
    step: int
    now: Sums = NOTHING
    whole: Sums = NOTHING
    before: Sums = NOTHING
    by_point: dict[int, Sums] = field(default_factory=lambda: defaultdict(Sums))
    models: dict[Model, Sums] = field(default_factory=dict)  # none of an API key
    cost_by_model: dict[Model, Series] = field(default_factory=dict)

    @property
    def points(self) -> int:
        return (self.drawn.until - self.drawn.since) // (self.step * MINUTE)


def context(period: Period, asked: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the page shows. Three statements, whatever the log's size.

    Raises `Http404` for what can be nobody's key, and Django's `OperationalError`.
    """
    parameter, key = _asked(asked)
    with sums.reading() as (cursor, progress):
        name = _name(parameter, key)
        found = read(cursor, KINDS[parameter], key, period, progress[0]) if progress else None
    who = spenders.named(parameter, key, name)
    shown = {
        "period": period,
        "periods": PERIODS,
        "is_computed": found is not None,
        "query": f"{urlencode({parameter: key})}&",
        "what": f"{NOUNS[parameter]} {key}" if who.is_somebody else who.aside,
        "noun": NOUNS[parameter],
        "exists": bool(name) or not who.is_somebody,
        "title": f"Spending: {who.name}",
    }
    if found is None:
        return shown
    watermark, back_to = progress
    filters = {parameter: key} if who.is_somebody else {}
    url = logs_url(found.window.span, **filters) if filters else ""
    return {
        **shown,
        "since": found.window.span.since,
        "until": watermark,
        "back_to": None if back_to <= found.window.before.since else back_to,
        "is_empty": not found.now.requests,
        "logs_url": url,
        "tiles": _tiles(found, url),
        "plots": _plots(found),
        "table": {"title": "Models", "head": "Model", "rows": _models(found, filters)},
    }


def read(cursor: Any, kind: str, key: str, period: Period, watermark: datetime) -> Spending:
    """Returns what one of them spent in the hours that a period touches, in one statement."""
    step = max(period.step, SPEND_LENGTH)
    hours = hours_of(window(period, watermark), watermark)
    drawn = hours.span.widened(step)
    spending = Spending(hours, drawn, step)
    parameters = {
        "kind": kind,
        "key": key,
        "since": hours.span.since,
        "until": hours.span.until,
        "start": drawn.since,
        "step": step * MINUTE.total_seconds(),
    }
    cursor.execute(_SPENT, parameters | lookups(hours, step))
    partial = NOTHING
    for part, point, provider, model, *columns, costs in cursor.fetchall():
        part_sums = _sums(*columns)
        if part == "model":
            spending.models[provider, model] = part_sums
            spending.cost_by_model[provider, model] = dict(json.loads(costs))
        elif part == "period":
            spending.by_point[point] = part_sums
            spending.now = spending.now.plus(part_sums)
        elif part == "before":
            spending.before = part_sums
        else:
            partial = part_sums
    spending.whole = spending.now.minus(partial)
    return spending


def _sums(count: int, failed: int, priced: int, unpriced: int, *others: Any) -> Sums:
    input_tokens, output_tokens, cost_usd = others
    return Sums(
        requests=int(count),
        succeeded=int(count - failed),
        priced=int(priced),
        unpriced=int(unpriced),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost=cost_usd,
    )


def _asked(asked: Mapping[str, str]) -> tuple[str, str]:
    """Returns the parameter and the key, as `Spender` has it: `user=` is nobody, `api_key=0` none.

    Raises `Http404`.
    """
    named = [parameter for parameter in KINDS if parameter in asked]
    if len(named) != 1:
        raise Http404("The address has to name a user or an API key.")
    (parameter,) = named
    text = asked[parameter]
    if parameter == "api_key":
        if not re.fullmatch("0|[1-9][0-9]{0,18}", text) or int(text) > user_keys.BIGINT_MAX:
            raise Http404("An API key is named by its id.")
        return parameter, text
    try:
        return parameter, str(user_keys.parse(text)) if text else ""
    except ValueError as error:
        raise Http404(f"{error}.") from None


def _name(parameter: str, key: str) -> str:
    """Returns '' if there is none of that key."""
    model: Any
    if parameter == "api_key":
        model, field_name, pk = ApiKey, "name", int(key)
    elif key:
        model = get_user_model()
        field_name, pk = model.USERNAME_FIELD, user_keys.native(user_keys.parse(key))
    else:
        return ""
    rows = model._base_manager.using(conf.load().database).filter(pk=pk)
    return str(rows.values_list(field_name, flat=True).first() or "")


def _tiles(found: Spending, url: str) -> list[Tile]:
    now, whole, before = found.now, found.whole, found.before
    return [
        cost_tile(now, whole, before),
        Tile("Requests", f"{now.requests:,}", "", change(whole.requests, before.requests), url),
        Tile(
            "Not succeeded",
            f"{100 * failed_share(now):.2f} %",
            requests(now.failed),
            change(failed_share(whole), failed_share(before)),
        ),
        Tile(
            "Tokens",
            short(now.tokens),
            f"{short(now.input_tokens)} in, {short(now.output_tokens)} out",
            change(whole.tokens, before.tokens),
        ),
    ]


def _plots(found: Spending) -> list[Plot]:
    axis = time_axis(found.drawn.since, found.drawn.until, get_current_timezone())

    def series(name: str) -> Series:
        return {point: getattr(each, name) for point, each in found.by_point.items()}

    outcomes = {
        "succeeded": values(series("succeeded"), found.points),
        "not succeeded": values(series("failed"), found.points),
    }
    if found.models:
        costs = cost_plot(axis, by_model(found.cost_by_model, found.points))
    else:
        costs = cost_plot(axis, {"cost": values(series("cost"), found.points)}, "Of all models.")
    return [
        costs,
        plots.stacks(
            plots.Caption("Requests", f"Each bar {length(found.step)}."),
            axis,
            outcomes,
            write=short,
            colours=COLOURS,
        ),
        tokens_plot(
            axis, {"input": series("input_tokens"), "output": series("output_tokens")}, found.points
        ),
    ]


def _models(found: Spending, filters: Mapping[str, str]) -> list[Row]:
    span = found.window.span
    ordered = sorted(
        found.models.items(), key=lambda item: (item[1].cost, item[1].requests), reverse=True
    )
    largest = max((each.cost for each in found.models.values()), default=sums.NO_COST)
    return [
        row(
            each,
            largest,
            name,
            provider,
            url=logs_url(span, **filters, provider=provider, model=name) if filters else "",
            spark=spark(found.cost_by_model[provider, name], found.points),
        )
        for (provider, name), each in ordered
    ]
