"""What failed in a period: each error by provider, model and HTTP status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generation.admin.overview import sums
from generation.admin.overview.periods import PERIODS, window
from generation.admin.overview.runs import POINT, RUNS, parameters
from generation.admin.overview.writing import logs_url
from generation.charts.sparklines import spark
from generation.log_search.selection import NO_HTTP_STATUS
from generation.models import GenerationLog
from generation.rollups.buckets import MINUTE

if TYPE_CHECKING:
    from datetime import datetime

    from generation.admin.overview.periods import Period

LISTED = 100

# Each kind gets a number, since users are counted by it: three months have a third of a million.
_ERRORS = f"""
WITH source AS MATERIALIZED (
    SELECT part, bucket, status, error_type, provider, model, http_status, requests, first_at,
        last_at, failed_users
    {RUNS.format(table="generation_rollup")}
    WHERE status <> 'succeeded'
),
kinds AS MATERIALIZED (
    SELECT row_number() OVER () AS kind, status, error_type, provider, model, http_status,
        sum(requests)::bigint AS requests, min(first_at) AS first_at, max(last_at) AS last_at
    FROM source WHERE part = 'all' GROUP BY status, error_type, provider, model, http_status
),
numbered AS (
    SELECT kind, part, bucket, source.requests, failed_users
    FROM source JOIN kinds USING (status, error_type, provider, model, http_status)
),
hit AS (
    SELECT kind, count(*) AS users
    FROM (
        SELECT DISTINCT kind, unnest(failed_users) COLLATE "C" FROM numbered WHERE part = 'all'
    ) AS each
    GROUP BY kind
),
points AS (
    SELECT kind, json_agg(json_build_array(point, requests))::text AS points
    FROM (
        SELECT kind, {POINT} AS point, sum(requests) AS requests
        FROM numbered WHERE part = 'points' GROUP BY 1, 2
    ) AS each
    GROUP BY kind
)
SELECT status, error_type, provider, model, http_status, requests, first_at, last_at,
    coalesce(users, 0), points, count(*) OVER (), sum(requests) OVER ()::bigint
FROM kinds JOIN points USING (kind) LEFT JOIN hit USING (kind)
ORDER BY requests DESC, status, error_type, provider, model, http_status LIMIT %(listed)s
"""  # noqa: S608  # made of our own constants


@dataclass(frozen=True, slots=True)
class Kind:
    """Failures that are alike."""

    status: str
    error: str
    provider: str
    model: str
    http_status: str
    requests: str
    share: str
    first_at: datetime
    last_at: datetime
    users: str
    spark: str
    url: str


def context(period: Period) -> dict[str, Any]:
    """Returns what the page shows. Two statements, whatever the log's size.

    Raises Django's `OperationalError`.
    """
    with sums.reading() as (cursor, progress):
        if progress is None:
            return {"period": period, "periods": PERIODS, "is_computed": False}
        watermark, back_to = progress
        found = window(period, watermark)
        runs = parameters(period, found.span, {"all": found.span})
        cursor.execute(_ERRORS, {**runs, "listed": LISTED})
        rows = cursor.fetchall()
    count = (found.span.until - found.span.since) // (period.step * MINUTE)
    words = dict(GenerationLog.Status.choices)
    failed = rows[0][-1] if rows else 0
    kinds = []
    for (
        status,
        error,
        provider,
        model,
        http,
        requests,
        first_at,
        last_at,
        users,
        points,
        *_,
    ) in rows:
        filters = {
            "status": status,
            "provider": provider,
            "model": model,
            "http_status": str(http or NO_HTTP_STATUS),
        }
        kinds.append(
            Kind(
                status=str(words.get(status, status)),
                error=error or "–",
                provider=provider,
                model=model,
                http_status=str(http or "–"),
                requests=f"{requests:,}",
                share=f"{100 * requests / failed:.1f} %",
                first_at=first_at,
                last_at=last_at,
                users=f"{users:,}",
                spark=spark(dict(json.loads(points)), count, "plot-bad"),
                url=logs_url(found.span, **filters, **({"error_type": error} if error else {})),
            )
        )
    return {
        "period": period,
        "periods": PERIODS,
        "is_computed": True,
        "since": found.span.since,
        "until": watermark,
        "back_to": None if back_to <= found.span.since else back_to,
        "kinds": kinds,
        "failed": f"{failed:,}",
        "kind_count": rows[0][-2] if rows else 0,
    }
