"""Finds the views that hold a connection while they stream or wait."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from generation.connections.held import open_ledger, opened_at, time_queries
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from generation.connections.held import Ledger

logger = logging.getLogger(__name__)

WAIT_S = 1.0  # held for so long without a query, a connection waits for something else


class HeldConnectionsMiddleware:
    """Counts and logs views that return a stream while they hold one of Django's connections, and
    those that held one for a second or more in which it ran no query.

    It changes no response. List it first, so that it sees what other middleware opens.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        time_queries()
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self):
            return self._call_async(request)
        ledger, close = open_ledger()
        started = monotonic()
        try:
            response = self._get_response(request)
        finally:
            close()
        _judge(request, response, ledger, started)
        return response

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        ledger, close = open_ledger()
        started = monotonic()
        try:
            response: HttpResponseBase = await self._get_response(request)
        finally:
            close()
        _judge(request, response, ledger, started)
        return response


def _judge(
    request: HttpRequest, response: HttpResponseBase, ledger: Ledger, started: float
) -> None:
    held = ledger.still_held()
    if not held:
        return
    idle_s = monotonic() - max(started, min(map(opened_at, held))) - ledger.query_s
    if response.streaming:
        while_ = "stream"
    elif idle_s >= WAIT_S:
        while_ = "wait"
    else:
        return
    metrics.VIEWS_HOLDING.labels(while_).inc()
    match = request.resolver_match
    view = match.view_name or match._func_path if match else request.path  # noqa: SLF001  # Django shows it in its own pages
    aliases = ", ".join(sorted({each.alias for each in held}))
    if while_ == "stream":
        logger.warning(
            "%s streams while it holds a connection (%s): give it back with released()"
            " before the response is returned",
            view,
            aliases,
        )
    else:
        logger.warning(
            "%s held a connection (%s) for %.1f s without a query: put what is slow inside"
            " released()",
            view,
            aliases,
            idle_s,
        )
