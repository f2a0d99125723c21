"""The connection pool's page, for operators."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse

from generation.api.auth import require_operator
from generation.runtime import process as runtime


async def pool(request: HttpRequest) -> HttpResponse:
    """The connections of the process that answers (open, checked out, waited for), its requests
    and its LLM calls in flight.

    `processes` lists every process of this deployment on this host, and `total` is their sum:
    peaks as if they had been reached at the same moment, percentiles as in the worst process."""
    await require_operator(request, "pool")
    now = runtime.current()
    return JsonResponse((await now.arun(now.pool_page())).as_json())
