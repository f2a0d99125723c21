"""The connection pool's figures, for operators: now, and over the last two minutes."""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse

from generation.api.auth import require_operator
from generation.runtime import process as runtime

OLDEST_S = 1.0
_MAX_AGE = re.compile(r"max-age=([1-9][0-9]{0,8})\b")


async def pool(request: HttpRequest) -> HttpResponse:
    """The connections of the process that answers (open, checked out, waited for), its requests
    and its LLM calls in flight.

    `processes` lists every process of this deployment on this host, and `total` is their sum:
    peaks as if they had been reached at the same moment, percentiles as in the worst process.

    A client that watches them sends `Cache-Control: max-age=1`, and gets figures that are a second
    old at most, which all who ask so share. The answer's own `max-age` says when to ask again: in a
    second, or later if many watch."""
    await require_operator(request, "pool")
    now = runtime.current()
    is_watched = _MAX_AGE.search(request.META.get("HTTP_CACHE_CONTROL", "")) is not None
    page = await now.arun(now.pool_json.within(OLDEST_S if is_watched else 0.0))
    response = HttpResponse(page, content_type="application/json")
    if is_watched:
        response["Cache-Control"] = f"private, max-age={now.pool_watchers.wait_s()}"
    return response


async def pool_history(request: HttpRequest) -> HttpResponse:
    """How many requests were in flight and connections checked out in all processes of this
    deployment on this host, at each of the last 120 seconds: the sum at the same second.

    One look per second, so what lasts for milliseconds is rarely met. Processes that have ended
    are not in it. The figures are a second old at most."""
    await require_operator(request, "pool")
    now = runtime.current()
    page = await now.arun(now.history_json.within(OLDEST_S))
    return HttpResponse(page, content_type="application/json")
