"""What failed in a period: each error by provider, model and HTTP status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generation.admin.overview import sums
from generation.admin.overview.dashboard import logs_url
from generation.admin.overview.periods import PERIODS, window
from generation.charts.sparklines import spark
from generation.log_search.selection import NO_HTTP_STATUS
from generation.models import GenerationLog
from generation.rollups.buckets import MINUTE

if TYPE_CHECKING:
    from datetime import datetime

    from generation.admin.overview.periods import Period

LISTED = 100

_ERRORS = """
WITH source AS MATERIALIZED (
    SELECT floor(extract(epoch FROM bucket - %(since)s) / %(step)s)::int AS point, status,
        error_type, provider, model, http_status, requests, first_at, last_at, failed_users
    FROM generation_rollup
    WHERE minutes = %(minutes)s AND bucket >= %(since)s AND bucket < %(until)s
        AND status <> 'succeeded'
),
hit AS (
    SELECT status, error_type, provider, model, http_status, count(DISTINCT user_key) AS users
    FROM (SELECT *, unnest(failed_users) AS user_key FROM source) AS each
    GROUP BY status, error_type, provider, model, http_status
),
points AS (
    SELECT status, error_type, provider, model, http_status, point, sum(requests) AS requests,
        min(first_at) AS first_at, max(last_at) AS last_at
    FROM source GROUP BY status, error_type, provider, model, http_status, point
)
SELECT status, error_type, provider, model, http_status, sum(requests)::bigint AS requests,
    min(first_at), max(last_at), coalesce(max(users), 0),
    json_agg(json_build_array(point, requests))::text,
    count(*) OVER () AS kinds, sum(sum(requests)) OVER ()::bigint AS failed
FROM points LEFT JOIN hit USING (status, error_type, provider, model, http_status)
GROUP BY status, error_type, provider, model, http_status
ORDER BY requests DESC, status, error_type, provider, model, http_status LIMIT %(listed)s
"""


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
        parameters = {
            "minutes": period.minutes,
            "step": period.step * MINUTE.total_seconds(),
            "since": found.span.since,
            "until": found.span.until,
            "listed": LISTED,
        }
        cursor.execute(_ERRORS, parameters)
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
                share=f"{requests / failed:.1%}",
                first_at=first_at,
                last_at=last_at,
                users=f"{users:,}",
                spark=spark(dict(json.loads(points)), count),
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
