"""Who serves a view: Django's own handler with its middleware, or the lean one without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from io import BytesIO
from time import monotonic
from typing import IO, TYPE_CHECKING, Any

from django.core.exceptions import BadRequest as DjangoBadRequest
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponseBadRequest

from generation.asgi.body import ClientLeft
from generation.asgi.lean import raise_for_error_page
from generation.asgi.request import Request
from generation.errors import BadRequest
from generation.telemetry.logs import THROTTLE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from django.http import HttpResponse
    from django.urls import ResolverMatch

    from generation.asgi.body import Receive, RequestBody
    from generation.asgi.head import Scope
    from generation.asgi.lean import LeanRoute


logger = logging.getLogger(__name__)

_HOST_CHARS = 100
_NO_PLACE = contextlib.nullcontext()


class _Handler(ASGIHandler):
    """Django's own, except that an unreadable Content-Type is the client's fault, not a bug."""

    request_class = Request

    def create_request(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> Any:
        try:
            return super().create_request(scope, body_file)
        except (DjangoBadRequest, ValueError):
            return None, HttpResponseBadRequest("the Content-Type can't be read")


class StockHandler(_Handler):
    """Refuses foreign host names itself: Django would log 2 kB for each."""

    def __init__(self) -> None:
        super().__init__()
        self._refused_hosts = 0  # since the last report
        self._report_at = 0.0

    def create_request(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> Any:
        request, refusal = super().create_request(scope, body_file)
        if request is not None:
            try:
                request.get_host()
            except DisallowedHost:
                self._report(request.META.get("HTTP_HOST", "")[:_HOST_CHARS])
                return None, HttpResponseBadRequest("this host name is not in ALLOWED_HOSTS")
        return request, refusal

    def _report(self, host: str) -> None:
        """At most once every ten seconds."""
        self._refused_hosts += 1
        if monotonic() >= self._report_at:
            logger.warning(
                "%d requests for hosts that are not in ALLOWED_HOSTS; the last was for %r",
                self._refused_hosts,
                host,
            )
            self._refused_hosts, self._report_at = 0, monotonic() + THROTTLE_S


class LeanHandler(_Handler):
    """Serves one async view: no middleware, no signals, no thread is entered."""

    def __init__(self) -> None:
        # ASGIHandler's own would load the middleware.
        pass

    async def respond(
        self,
        match: ResolverMatch,
        route: LeanRoute,
        scope: Scope,
        body: RequestBody,
        receive: Receive,
    ) -> HttpResponse:
        """Raises a `StaccatoError`, whatever the view raises, or `ClientLeft`."""
        content = BytesIO()
        request, _refusal = self.create_request(scope, content)
        if request is None:
            raise BadRequest("the Content-Type can't be read")
        request.resolver_match = match
        place = _NO_PLACE if route.entrance is None else await route.entrance(request)
        with place:
            await body.read(content, admitted=place is not _NO_PLACE)
            # Django's own way to the body has a limit of its own, of 2.5 MB.
            request._body = content.getvalue()  # noqa: SLF001  # where Django keeps it
            async with cancelled_when_client_leaves(receive):
                response = await route.view(request, *match.args, **match.kwargs)
        if response.status_code >= BadRequest.status:
            raise_for_error_page(response)
        return response


@contextlib.asynccontextmanager
async def cancelled_when_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects; raises `ClientLeft` then."""
    serving = asyncio.current_task()
    assert serving is not None
    left = False

    async def watch() -> None:
        nonlocal left
        message = await receive()
        if message["type"] == "http.disconnect":
            left = True
            serving.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        serving.uncancel()
        raise ClientLeft from None
    finally:
        watcher.cancel()
