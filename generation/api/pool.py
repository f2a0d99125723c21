"""The connection pool's page, for operators."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse

from generation.api.auth import require_operator
from generation.runtime import process as runtime


async def pool(request: HttpRequest) -> HttpResponse:
    """Connections open, checked out and waited for, and LLM calls in flight, of the process
    that answers.

    `processes` lists all that serve this deployment on this host, `total` adds them up: peaks
    as if they had come at one moment, quantiles as those of the worst process."""
    await require_operator(request, "pool")
    return JsonResponse((await runtime.current().pool_page()).as_json())
