"""/livez, /readyz and /metrics."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST

from generation.api.auth import needs_no_session, require_operator
from generation.asgi.lean import lean
from generation.errors import JournalUnavailable, NotFound
from generation.runtime import process as runtime


@lean()
async def livez(_request: HttpRequest) -> HttpResponse:
    """Returns 200 if the process can answer; checks no dependency."""
    return JsonResponse({"alive": True})


@lean()
async def readyz(_request: HttpRequest) -> HttpResponse:
    """200 where a request to generate would be served now, else 503 with the reason."""
    now = runtime.current()
    detail = {
        "draining": now.admission.draining,
        "database": await now.database_probe.state(),
        "journal": _journal(now),
        "pending_migrations": now.database_probe.pending_migrations,
        "requests_in_flight": len(now.admission.calls),
    }
    works = detail["database"] == detail["journal"] == "ok"
    ready = works and not now.admission.draining and not detail["pending_migrations"]
    return JsonResponse({"ready": ready, **detail}, status=200 if ready else 503)


def _journal(now: runtime.Runtime) -> str:
    """'ok', or why an answer could not be kept safe."""
    try:
        now.log.admit()
    except JournalUnavailable as error:
        return error.detail
    if now.log.stuck:
        return f"PostgreSQL answers, and takes no rows: {now.log.stuck}"
    return "ok"


@lean(when=needs_no_session("metrics"))
async def metrics(request: HttpRequest) -> HttpResponse:
    await require_operator(request, "metrics")
    now = runtime.current()
    return HttpResponse(await now.arun(now.metrics()), content_type=CONTENT_TYPE_LATEST)


@lean()
async def not_found(_request: HttpRequest, *_args: str | None) -> HttpResponse:
    """Everything under the API's prefixes that is no route of it."""
    raise NotFound("nothing matches this address")
