"""The connection pool's page, for operators."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse

from generation.api.auth import require_operator
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

OLDEST_S = 1.0
_MAX_AGE = re.compile(r"max-age=([1-9][0-9]{0,8})\b")


async def pool(request: HttpRequest) -> HttpResponse:
    """The connections of the process that answers (open, checked out, waited for), its requests
    and its LLM calls in flight.

    `processes` lists every process of this deployment on this host, and `total` is their sum:
    peaks as if they had been reached at the same moment, percentiles as in the worst process.

    Who sends `Cache-Control: max-age=1` may get figures that are a second old, which all who ask
    so share: to take them sorts 16,000 durations."""
    await require_operator(request, "pool")
    now = runtime.current()
    page = await now.arun(now.pool_json.within(_accepted_age_s(request.META)))
    return HttpResponse(page, content_type="application/json")


def _accepted_age_s(meta: Mapping[str, Any]) -> float:
    return OLDEST_S if _MAX_AGE.search(meta.get("HTTP_CACHE_CONTROL", "")) else 0.0
