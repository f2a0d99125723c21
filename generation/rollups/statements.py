"""The SQL of rollups: text with PostgreSQL's own parameters.

Each statement computes whole buckets, from $1 until just before $2, and makes the table equal to
what it found. A row that did not change is not written: most of an hour's don't, in half a minute.
"""

# ruff: noqa: S608  # made of our own names and numbers; a caller's words are parameters

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from generation.rollups.buckets import (
    EPOCH,
    ROLLUP_LENGTHS,
    SPEND_LENGTH,
    SPENDER_LENGTHS,
)
from generation.rollups.histogram import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROLLUP_KEY = ("bucket", "provider", "model", "status", "error_type", "http_status")
_MOMENTS = "min(first_at) AS first_at, max(last_at) AS last_at"
_COUNTS = ("requests", "priced", "unpriced", "retried", "fell_back")
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_VALUES = (*_COUNTS, *_TOKENS, "cost_usd")
_HIGHEST = ("highest_cost_usd", "highest_total_tokens", "highest_latency_step")
_BOUNDS = (*_HIGHEST, "stop_reasons")
_LATENCY_KEY = ("bucket", "provider", "model")
_SPEND_KEY = ("hour", "user_key", "api_key_id", "provider", "model")
_SPENDER_KEY = ("minutes", "bucket", "kind", "key")
_SPEND_SUMS = (
    *("requests", "failed", "priced", "unpriced"),
    *("input_tokens", "output_tokens", "cost_usd"),
)
# A failure without tokens cost nothing, so it lacks no price.
_PRICING = """count(cost_usd) AS priced,
    count(*) FILTER (
        WHERE cost_usd IS NULL AND (status = 'succeeded' OR input_tokens > 0 OR output_tokens > 0)
    ) AS unpriced"""


def _commas(names: Iterable[str]) -> str:
    return ", ".join(names)


def _bin(minutes: int, column: str) -> str:
    return f"date_bin('{minutes} minutes', {column}, timestamptz '{EPOCH}')"


def _step(ms: str) -> str:
    return f"width_bucket({ms}, '{{{_commas(map(str, BOUNDS))}}}'::int[])"


def _sums(columns: Iterable[str]) -> str:
    return _commas(f"coalesce(sum({column}), 0) AS {column}" for column in columns)


def _array(name: str, items: str) -> str:
    """Returns a CTE with an array for each key, from rows that have an item, each item once."""
    key = _commas(_ROLLUP_KEY)
    return f"""
{name} AS (
    SELECT {key}, ARRAY(
        SELECT each FROM unnest(array_agg(item)) AS each ORDER BY each COLLATE "C"
    ) AS {name}
    FROM (SELECT DISTINCT {key}, item FROM ({items}) AS all_items WHERE item IS NOT NULL) AS items
    GROUP BY {key}
)"""


def _rollup(minutes: int, source: str, sums: str, items: dict[str, str]) -> str:
    """Returns the statement for rollups of a length, from rows of requests or shorter rollups."""
    arrays = ",".join(_array(name, each) for name, each in items.items())
    key = _commas(_ROLLUP_KEY)
    computed = f"""
WITH source AS MATERIALIZED ({source}),
sums AS (SELECT {key}, {sums} FROM source GROUP BY {key}),
{arrays},
fresh AS (
    SELECT {minutes} AS minutes, sums.*, coalesce(failed_users, '{{}}') AS failed_users,
        coalesce(stop_reasons, '{{}}') AS stop_reasons
    FROM sums LEFT JOIN failed_users USING ({key}) LEFT JOIN stop_reasons USING ({key})
)"""
    values = (*_VALUES, "first_at", "last_at", "failed_users", *_BOUNDS)
    span = _within("bucket", minutes)
    return computed + _replace("generation_rollup", span, ("minutes", *_ROLLUP_KEY), values)


def _within(column: str, minutes: int = 0) -> str:
    """Returns the condition for the span's rows; with `minutes`, for buckets of that length."""
    span = f"{column} >= $1::timestamptz AND {column} < $2::timestamptz"
    return f"minutes = {minutes} AND {span}" if minutes else span


def _replace(table: str, span: str, key: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Returns what makes a table's rows of a span equal to a CTE `fresh`.

    Deletion and insertion concern different keys, so PostgreSQL may do them in any order.
    """
    same = " AND ".join(f"fresh.{name} = known.{name}" for name in key)
    known, new = (_commas(f"{row}.{name}" for name in values) for row in ("known", "excluded"))
    columns = _commas((*key, *values))
    return f""",
gone AS (
    DELETE FROM {table} AS known WHERE {span} AND NOT EXISTS (SELECT FROM fresh WHERE {same})
)
INSERT INTO {table} AS known ({columns}) SELECT {columns} FROM fresh
ON CONFLICT ({_commas(key)}) DO UPDATE SET ({_commas(values)}) = ROW ({new})
WHERE ({known}) IS DISTINCT FROM ({new})"""


def _rollup_of_log(minutes: int) -> str:
    log = f"""
    SELECT {_bin(minutes, "created_at")} AS bucket, provider, model, status, error_type,
        coalesce((attempts -> -1 ->> 'status')::int, 0) AS http_status,
        jsonb_array_length(attempts) > 1 AS is_retried,
        (attempts -> 0 ->> 'provider', attempts -> 0 ->> 'model')
            IS DISTINCT FROM (attempts -> -1 ->> 'provider', attempts -> -1 ->> 'model')
            AS is_fallen_back,
        {_commas(_TOKENS)}, total_tokens, cost_usd, stop_reason,
        latency_ms, created_at AS first_at, created_at AS last_at, user_id
    FROM generation_generationlog
    WHERE {_within("created_at")}"""
    sums = f"""count(*) AS requests, {_PRICING},
    count(*) FILTER (WHERE is_retried) AS retried,
    count(*) FILTER (WHERE is_fallen_back) AS fell_back,
    {_sums((*_TOKENS, "cost_usd"))}, {_MOMENTS},
    coalesce(max(cost_usd), 0) AS highest_cost_usd,
    coalesce(max(total_tokens), 0) AS highest_total_tokens,
    {_step("max(latency_ms)")} AS highest_latency_step"""
    items = {
        "failed_users": f"SELECT {_commas(_ROLLUP_KEY)}, user_id::text AS item FROM source"
        " WHERE status <> 'succeeded'",
        "stop_reasons": f"SELECT {_commas(_ROLLUP_KEY)}, nullif(stop_reason, '') AS item"
        " FROM source",
    }
    return _rollup(minutes, log, sums, items)


def _rollup_of_shorter(minutes: int, shorter: int) -> str:
    rows = f"""
    SELECT {_bin(minutes, "bucket")} AS bucket, provider, model, status, error_type, http_status,
        {_commas((*_VALUES, *_BOUNDS))}, first_at, last_at, failed_users
    FROM generation_rollup
    WHERE {_within("bucket", shorter)}"""
    items = {
        name: f"SELECT {_commas(_ROLLUP_KEY)}, unnest({name}) AS item FROM source"
        for name in ("failed_users", "stop_reasons")
    }
    sums = f"""{_sums(_VALUES)}, {_MOMENTS},
    {_commas(f"max({name}) AS {name}" for name in _HIGHEST)}"""
    return _rollup(minutes, rows, sums, items)


def _latency(minutes: int, steps: str) -> str:
    """Returns the statement for histograms of a length, from rows of a key, a step and a count."""
    key = _commas(_LATENCY_KEY)
    fresh = f"""
WITH steps AS ({steps}),
fresh AS (
    SELECT {minutes} AS minutes, {key}, array_agg(step ORDER BY step) AS steps,
        array_agg(count ORDER BY step) AS counts
    FROM steps GROUP BY {key}
)"""
    span = _within("bucket", minutes)
    columns = ("minutes", *_LATENCY_KEY)
    return fresh + _replace("generation_latency", span, columns, ("steps", "counts"))


def _latency_of_log(minutes: int) -> str:
    log = f"""
    SELECT {_bin(minutes, "created_at")} AS bucket, provider, model,
        {_step("latency_ms")} AS step
    FROM generation_generationlog WHERE {_within("created_at")} AND status = 'succeeded'"""
    return _latency(
        minutes,
        f"""
    SELECT bucket, coalesce(provider, '') AS provider, coalesce(model, '') AS model, step,
        count(*)::int AS count
    FROM ({log}) AS each
    GROUP BY GROUPING SETS ((bucket, provider, model, step), (bucket, step))
    HAVING GROUPING(provider) = 1 OR (provider, model) <> ('', '')""",
    )


def _latency_of_shorter(minutes: int, shorter: int) -> str:
    return _latency(
        minutes,
        f"""
    SELECT {_bin(minutes, "bucket")} AS bucket, provider, model, step, sum(count)::int AS count
    FROM generation_latency, unnest(steps, counts) AS histogram (step, count)
    WHERE {_within("bucket", shorter)} GROUP BY 1, 2, 3, 4""",
    )


def _spend() -> str:
    fresh = f"""
WITH sums AS (
    SELECT {_bin(SPEND_LENGTH, "created_at")} AS hour, user_id, api_key_id, provider, model,
        count(*) AS requests, count(*) FILTER (WHERE status <> 'succeeded') AS failed,
        {_PRICING}, {_sums(("input_tokens", "output_tokens", "cost_usd"))}
    FROM generation_generationlog WHERE {_within("created_at")}
    GROUP BY 1, user_id, api_key_id, provider, model
),
fresh AS (
    SELECT hour, coalesce(user_id::text, '') AS user_key, coalesce(api_key_id, 0) AS api_key_id,
        provider, model, {_commas(_SPEND_SUMS)}
    FROM sums
)"""
    return fresh + _replace("generation_spend", _within("hour"), _SPEND_KEY, _SPEND_SUMS)


def _spender_of_spend(minutes: int) -> str:
    fresh = f"""
WITH fresh AS (
    SELECT {minutes} AS minutes, hour AS bucket,
        CASE GROUPING(user_key) WHEN 0 THEN 'user' ELSE 'key' END AS kind,
        CASE GROUPING(user_key) WHEN 0 THEN user_key ELSE api_key_id::text END AS key,
        {_sums(_SPEND_SUMS)}
    FROM generation_spend WHERE {_within("hour")}
    GROUP BY GROUPING SETS ((hour, user_key), (hour, api_key_id))
)"""
    return fresh + _replace(
        "generation_spender", _within("bucket", minutes), _SPENDER_KEY, _SPEND_SUMS
    )


def _spender_of_shorter(minutes: int, shorter: int) -> str:
    fresh = f"""
WITH fresh AS (
    SELECT {minutes} AS minutes, {_bin(minutes, "bucket")} AS bucket, kind, key,
        {_sums(_SPEND_SUMS)}
    FROM generation_spender WHERE {_within("bucket", shorter)}
    GROUP BY 2, kind, key
)"""
    return fresh + _replace(
        "generation_spender", _within("bucket", minutes), _SPENDER_KEY, _SPEND_SUMS
    )


# PostgreSQL expects few rows of a CTE, and would compare each with each: 2 s for an hour of 7,000
# rows in place of 0.2.
PLANNING = """
SELECT set_config('enable_nestloop', 'off', true), set_config('jit', 'off', true)"""
# The statements in the order in which to run them, each with its buckets' length in minutes.
ALL = (
    (ROLLUP_LENGTHS[0], _rollup_of_log(ROLLUP_LENGTHS[0])),
    *(
        (length, _rollup_of_shorter(length, shorter))
        for shorter, length in pairwise(ROLLUP_LENGTHS)
    ),
    (ROLLUP_LENGTHS[0], _latency_of_log(ROLLUP_LENGTHS[0])),
    *(
        (length, _latency_of_shorter(length, shorter))
        for shorter, length in pairwise(ROLLUP_LENGTHS)
    ),
    (SPEND_LENGTH, _spend()),
    (SPENDER_LENGTHS[0], _spender_of_spend(SPENDER_LENGTHS[0])),
    *(
        (length, _spender_of_shorter(length, shorter))
        for shorter, length in pairwise(SPENDER_LENGTHS)
    ),
)

# The buckets of rows that were stored after $1, until $2, newest first.
TOUCHED = f"""
SELECT DISTINCT {_bin(ROLLUP_LENGTHS[0], "created_at")} AS bucket
FROM generation_generationlog
WHERE stored_at > $1::timestamptz AND stored_at <= $2::timestamptz AND created_at >= $3::timestamptz
ORDER BY bucket DESC"""
OLDEST = "SELECT id FROM generation_generationlog ORDER BY id LIMIT 1"
PROGRESS = """
SELECT watermark, back_to, statement_timestamp() AS now
FROM generation_maintenance WHERE task = :task"""
# Only who has the lease writes progress; it is extended with it.
ADVANCE = """
UPDATE generation_maintenance
SET watermark = coalesce($3::timestamptz, watermark), back_to = coalesce($4::timestamptz, back_to),
    leased_until = statement_timestamp() + $5::interval
WHERE task = $1 AND holder = $2
RETURNING task"""
# Table, condition up to the bucket's start, and whether it is kept for long.
EXPIRING = (
    *(
        (table, f"minutes = {length} AND bucket", length == lengths[-1])
        for table, lengths in (
            ("generation_rollup", ROLLUP_LENGTHS),
            ("generation_latency", ROLLUP_LENGTHS),
            ("generation_spender", SPENDER_LENGTHS),
        )
        for length in lengths
    ),
    ("generation_spend", "hour", False),
)
EXPIRE = """
DELETE FROM {table} WHERE ctid IN (
    SELECT ctid FROM {table} WHERE {column} < statement_timestamp() - $1::interval LIMIT $2
) RETURNING 1"""
