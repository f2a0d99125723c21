"""/livez, /readyz and /metrics."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from generation.api import auth as access
from generation.asgi import problems
from generation.errors import DatabaseUnavailable, JournalUnavailable, RuntimeNotOpen
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from generation.runtime.process import Runtime

PING_TIMEOUT_S = 2.0
PING_KEPT_S = 1.0  # however often we are asked, the database is asked once a second


async def livez(_request: HttpRequest) -> HttpResponse:
    """The process answers. Touches nothing."""
    return JsonResponse({"alive": True})


async def readyz(_request: HttpRequest) -> HttpResponse:
    """200 where a generate request would be served now, 503 with the reason where not."""
    try:
        now = runtime.current()
    except RuntimeNotOpen as error:
        return problems.respond(error)
    detail = {
        "draining": now.draining,
        "database": await _database(now),
        "journal": _journal(now),
        "pending_migrations": now.pending_migrations,
        "requests_in_flight": len(now.calls),
    }
    works = detail["database"] == detail["journal"] == "ok"
    ready = works and not now.draining and not now.pending_migrations
    return JsonResponse({"ready": ready, **detail}, status=200 if ready else 503)


async def metrics(request: HttpRequest) -> HttpResponse:
    refusal = await access.refuse(request, "metrics")
    if refusal:
        return refusal
    try:
        text = await runtime.current().metrics()
    except RuntimeNotOpen:
        text = generate_latest()
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


async def not_found(_request: HttpRequest, **_kwargs: str) -> HttpResponse:
    """A problem document for what is under the API's prefix but is no route of it."""
    return problems.from_plain(HttpResponse(status=404))


def _journal(now: Runtime) -> str:
    try:
        now.log.admit()
    except JournalUnavailable as error:
        return error.detail
    return "ok"


_last_ping = ("", 0.0)


async def _database(now: Runtime) -> str:
    global _last_ping  # noqa: PLW0603  # one process, one answer
    answer, at = _last_ping
    if not answer or time.monotonic() - at > PING_KEPT_S:
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await now.store.ping()
            answer = "ok"
        except (DatabaseUnavailable, TimeoutError) as error:
            answer = str(error) or f"no answer within {PING_TIMEOUT_S:g} s"
        _last_ping = (answer, time.monotonic())
    return answer
