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
from generation.rollups.buckets import MINUTE, SPENDER_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from decimal import Decimal

    from generation.admin.overview.periods import Window
    from generation.rollups.buckets import Span

LISTED = 10

# All are ranked by the sums of two columns. Everything else is read of those who are listed, each
# row through its key: OFFSET keeps the planner from reading the rows of all.
_PART = """
    SELECT kind, key, requests, cost_usd
    FROM generation_spender WHERE minutes = %s AND bucket >= %s AND bucket < %s"""
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
        ORDER BY cost DESC, requests DESC, key LIMIT %s
    ) AS dearest
),
listed AS (
    SELECT kind, key, sum(failed) FILTER (WHERE part = 'period')::bigint AS failed,
        sum(priced) FILTER (WHERE part = 'period')::bigint AS priced,
        sum(unpriced) FILTER (WHERE part = 'period')::bigint AS unpriced,
        sum(input_tokens + output_tokens) FILTER (WHERE part = 'period') AS tokens,
        sum(cost_usd) FILTER (WHERE part = 'partial') AS cost_partial,
        sum(cost_usd) FILTER (WHERE part = 'before') AS cost_before
    FROM ranked
    CROSS JOIN unnest(%s::text[], %s::int[], %s::timestamptz[]) AS wanted (part, minutes, bucket)
    CROSS JOIN LATERAL (
        SELECT failed, priced, unpriced, input_tokens, output_tokens, cost_usd
        FROM generation_spender AS each
        WHERE each.minutes = wanted.minutes AND each.bucket = wanted.bucket
            AND each.kind = ranked.kind AND each.key = ranked.key OFFSET 0
    ) AS spent_then
    GROUP BY kind, key
)
SELECT kind, spenders, key, coalesce({user_name}::text, {key_name}, '') AS name,
    requests, failed, priced, unpriced, tokens, cost,
    cost - coalesce(cost_partial, 0) AS cost_whole, coalesce(cost_before, 0) AS cost_before
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
    parts = [
        (minutes, run.since, run.until)
        for minutes, run in longest_buckets(found.span, SPENDER_LENGTHS)
    ]
    wanted = [
        (part, minutes, bucket)
        for part, span in (
            ("period", found.span),
            ("partial", found.partial),
            ("before", found.before),
        )
        for minutes, bucket in _buckets(span)
    ]
    columns = [[each[place] for each in wanted] for place in range(3)]
    cursor.execute(_statement(len(parts)), [*chain.from_iterable(parts), LISTED, *columns])
    ranking = Ranking(found)
    for kind, count, *spent in cursor.fetchall():
        if kind == Spender.Kind.USER:
            ranking.users.append(Spent(*spent))
            ranking.user_count = count
        else:
            ranking.keys.append(Spent(*spent))
            ranking.key_count = count
    return ranking


def _buckets(span: Span) -> Iterator[tuple[int, datetime]]:
    """Yields the longest buckets that make up a span, each with its minutes."""
    for minutes, run in longest_buckets(span, SPENDER_LENGTHS):
        for number in range((run.until - run.since) // (minutes * MINUTE)):
            yield minutes, run.since + number * minutes * MINUTE


def _statement(period: int) -> str:
    connection = connections[conf.load().database]
    quote = connection.ops.quote_name
    users: Any = get_user_model()._meta
    name = users.get_field(get_user_model().USERNAME_FIELD)
    key = user_keys.key_field(get_user_model())
    return _RANKED.format(
        period=" UNION ALL".join([_PART] * period),
        users=quote(users.db_table),
        user_id=quote(users.pk.column),
        user_name=f"users.{quote(name.column)}",
        user_type=key.rel_db_type(connection).split("(")[0],
        api_keys=quote(ApiKey._meta.db_table),
        key_name="api_keys.name",
    )
