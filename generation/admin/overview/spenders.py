"""Which users and API keys spent most in a period, read from the rollups."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections

from generation import conf, user_keys
from generation.admin.overview.periods import hours_of, longest_buckets
from generation.admin.overview.runs import LOOKUPS, lookups
from generation.models import ApiKey, Spender
from generation.rollups.buckets import MINUTE, SPEND_LENGTH, SPENDER_LENGTHS

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from generation.admin.overview.periods import Window

LISTED = 10
LEAST_POINTS = 24  # of the cost over time, where the period has as many hours

# All are ranked by the sums of two columns. Everything else is read of those who are listed, each
# row through its key: OFFSET keeps the planner from reading the rows of all.
_PART = """
    SELECT kind, key, requests, cost_usd
    FROM generation_spender
    WHERE minutes = %(minutes_{n})s AND bucket >= %(since_{n})s AND bucket < %(until_{n})s"""
_RANKED = """
WITH spent AS MATERIALIZED (
    SELECT kind, key, sum(requests)::bigint AS requests, sum(cost_usd) AS cost
    FROM ({period}) AS period GROUP BY kind, key
),
ranked AS MATERIALIZED (
    SELECT * FROM (VALUES ('user'), ('key')) AS kinds (kind)
    CROSS JOIN LATERAL (
        SELECT count(*) AS spenders FROM spent WHERE spent.kind = kinds.kind
    ) AS counted
    CROSS JOIN LATERAL (
        SELECT key, requests, cost FROM spent WHERE spent.kind = kinds.kind
        ORDER BY cost DESC, requests DESC, key LIMIT %(listed)s
    ) AS dearest
),
listed AS (
    SELECT kind, key, sum(failed) FILTER (WHERE part = 'period')::bigint AS failed,
        sum(priced) FILTER (WHERE part = 'period')::bigint AS priced,
        sum(unpriced) FILTER (WHERE part = 'period')::bigint AS unpriced,
        sum(input_tokens + output_tokens) FILTER (WHERE part = 'period') AS tokens,
        sum(cost_usd) FILTER (WHERE part = 'partial') AS cost_partial,
        sum(cost_usd) FILTER (WHERE part = 'before') AS cost_before,
        json_agg(json_build_array(point, cost_usd)) FILTER (WHERE part = 'period')::text AS points
    {lookups}
    GROUP BY kind, key
)
SELECT kind, spenders, key, coalesce({user_name}::text, {key_name}, '') AS name,
    requests, failed, priced, unpriced, tokens, cost,
    cost - coalesce(cost_partial, 0) AS cost_whole, coalesce(cost_before, 0) AS cost_before,
    points
FROM ranked JOIN listed USING (kind, key)
LEFT JOIN {users} AS users
    ON users.{user_id} = CASE WHEN kind = 'user' AND key <> '' THEN key::{user_type} END
LEFT JOIN {api_keys} AS api_keys
    ON api_keys.id = CASE WHEN kind = 'key' THEN key::bigint END
ORDER BY kind, cost DESC, requests DESC, key
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one of them spent."""

    key: str
    name: str  # '': the user or the API key is gone
    requests: int
    failed: int
    priced: int
    unpriced: int
    tokens: int
    cost: Decimal
    cost_whole: Decimal  # without the hour that is not over
    cost_before: Decimal
    cost_by_point: dict[int, float]


@dataclass(frozen=True, slots=True)
class Named:
    """How a page names one of them."""

    name: str
    aside: str
    is_somebody: bool = True  # whose generations can be listed


def named(parameter: str, key: str, name: str) -> Named:
    """`parameter`: `user` or `api_key`. `name` is '' if there is none of that key."""
    if parameter == "user":
        if not key:
            return Named("nobody", "the project's own code", is_somebody=False)
        return Named(name, key) if name else Named(key, "deleted")
    if key == "0":
        return Named("no key", "", is_somebody=False)
    return Named(name, "") if name else Named(f"key {key}", "deleted")


@dataclass(slots=True)
class Ranking:
    """Those who spent most, and how many there are in all."""

    window: Window
    points: int  # that the cost over time has
    users: list[Spent] = field(default_factory=list)
    keys: list[Spent] = field(default_factory=list)
    user_count: int = 0
    key_count: int = 0


def rank(cursor: Any, period: Window, watermark: datetime) -> Ranking:
    """Returns the ranking of the hours that a period touches, in one statement."""
    found = hours_of(period, watermark)
    length = found.span.until - found.span.since
    step = max(
        (each for each in SPENDER_LENGTHS if LEAST_POINTS * each * MINUTE <= length),
        default=SPEND_LENGTH,
    )
    drawn = found.span.widened(step)
    runs = list(longest_buckets(found.span, SPENDER_LENGTHS))
    values = {"listed": LISTED, **lookups(found, step)}
    for number, (minutes, run) in enumerate(runs):
        values |= {
            f"minutes_{number}": minutes,
            f"since_{number}": run.since,
            f"until_{number}": run.until,
        }
    cursor.execute(_statement(len(runs)), values)
    ranking = Ranking(found, (drawn.until - drawn.since) // (step * MINUTE))
    for kind, count, *columns in cursor.fetchall():
        columns[-1] = _summed(columns[-1])
        spent = Spent(*columns)
        if kind == Spender.Kind.USER:
            ranking.users.append(spent)
            ranking.user_count = count
        else:
            ranking.keys.append(spent)
            ranking.key_count = count
    return ranking


def _summed(points: str) -> dict[int, float]:
    """Returns the costs by their points, of which each may have several buckets."""
    found: dict[int, float] = defaultdict(float)
    for point, cost in json.loads(points):
        found[point] += cost
    return found


def _statement(runs: int) -> str:
    connection = connections[conf.load().database]
    quote = connection.ops.quote_name
    users: Any = get_user_model()._meta
    name = users.get_field(get_user_model().USERNAME_FIELD)
    key = user_keys.key_field(get_user_model())
    return _RANKED.format(
        lookups=LOOKUPS.format(spender="ranked AS spender"),
        period=" UNION ALL".join(_PART.format(n=number) for number in range(runs)),
        users=quote(users.db_table),
        user_id=quote(users.pk.column),
        user_name=f"users.{quote(name.column)}",
        user_type=key.rel_db_type(connection).split("(")[0],
        api_keys=quote(ApiKey._meta.db_table),
        key_name="api_keys.name",
    )
