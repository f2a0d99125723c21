"""Which users and API keys spent most in a period, read from the rollups."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections

from generation import conf, user_keys
from generation.admin.overview.periods import hours_of, longest_buckets
from generation.models import ApiKey, Spender
from generation.rollups.buckets import SPENDER_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from decimal import Decimal

    from generation.admin.overview.periods import Window
    from generation.rollups.buckets import Span

LISTED = 10

# All are summed for the period, to rank them; the other times are read of those who are listed.
_PART = """
    SELECT %s AS part, kind, key, requests, failed, priced, unpriced, input_tokens, output_tokens,
        cost_usd
    FROM generation_spender WHERE minutes = %s AND bucket >= %s AND bucket < %s"""
_RANKED = """
WITH spent AS (
    SELECT kind, key, sum(requests)::bigint AS requests, sum(failed)::bigint AS failed,
        sum(priced)::bigint AS priced, sum(unpriced)::bigint AS unpriced,
        sum(input_tokens) + sum(output_tokens) AS tokens, sum(cost_usd) AS cost
    FROM ({period}) AS period GROUP BY kind, key
),
ranked AS (
    SELECT * FROM (
        SELECT *, count(*) OVER (PARTITION BY kind) AS spenders,
            row_number() OVER (PARTITION BY kind ORDER BY cost DESC, requests DESC, key) AS rank
        FROM spent
    ) AS all_of_them WHERE rank <= %s
),
compared AS (
    SELECT kind, key, sum(cost_usd) FILTER (WHERE part = 'partial') AS cost_partial,
        sum(cost_usd) FILTER (WHERE part = 'before') AS cost_before
    FROM ({others}) AS others JOIN ranked USING (kind, key) GROUP BY kind, key
)
SELECT kind, spenders, key, coalesce({user_name}::text, {key_name}, '') AS name,
    ranked.requests, ranked.failed, ranked.priced, ranked.unpriced, ranked.tokens, ranked.cost,
    ranked.cost - coalesce(cost_partial, 0) AS cost_whole, coalesce(cost_before, 0) AS cost_before
FROM ranked
LEFT JOIN compared USING (kind, key)
LEFT JOIN {users} AS users
    ON users.{user_id} = CASE WHEN kind = 'user' AND key <> '' THEN key::{user_type} END
LEFT JOIN {api_keys} AS api_keys
    ON api_keys.id = CASE WHEN kind = 'key' THEN key::bigint END
ORDER BY kind, rank
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


@dataclass(slots=True)
class Ranking:
    """Those who spent most, and how many there are in all."""

    window: Window
    users: list[Spent] = field(default_factory=list)
    keys: list[Spent] = field(default_factory=list)
    user_count: int = 0
    key_count: int = 0


def rank(cursor: Any, period: Window, watermark: datetime) -> Ranking:
    """Returns the ranking of the hours that a period touches, in one statement."""
    found = hours_of(period, watermark)
    period_parts = list(_parts("period", found.span))
    others = [*_parts("partial", found.partial), *_parts("before", found.before)]
    parameters = [*chain.from_iterable(period_parts), LISTED, *chain.from_iterable(others)]
    cursor.execute(_statement(len(period_parts), len(others)), parameters)
    ranking = Ranking(found)
    for kind, count, *columns in cursor.fetchall():
        if kind == Spender.Kind.USER:
            ranking.users.append(Spent(*columns))
            ranking.user_count = count
        else:
            ranking.keys.append(Spent(*columns))
            ranking.key_count = count
    return ranking


def _parts(name: str, span: Span) -> Iterator[tuple[object, ...]]:
    for minutes, run in longest_buckets(span, SPENDER_LENGTHS):
        yield name, minutes, run.since, run.until


def _statement(period: int, others: int) -> str:
    connection = connections[conf.load().database]
    quote = connection.ops.quote_name
    users: Any = get_user_model()._meta
    name = users.get_field(get_user_model().USERNAME_FIELD)
    key = user_keys.key_field(get_user_model())
    return _RANKED.format(
        period=" UNION ALL".join([_PART] * period),
        others=" UNION ALL".join([_PART] * others),
        users=quote(users.db_table),
        user_id=quote(users.pk.column),
        user_name=f"users.{quote(name.column)}",
        user_type=key.rel_db_type(connection).split("(")[0],
        api_keys=quote(ApiKey._meta.db_table),
        key_name="api_keys.name",
    )
