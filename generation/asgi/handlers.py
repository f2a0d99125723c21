"""Who serves a view: Django's own handler with its middleware, or the lean one without."""

from __future__ import annotations

import asyncio
import contextlib
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from django.core.exceptions import BadRequest as DjangoBadRequest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponseBadRequest

from generation.asgi.body import ClientLeft
from generation.asgi.lean import raise_for_error_page
from generation.asgi.request import Request
from generation.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from django.http import HttpResponse
    from django.urls import ResolverMatch

    from generation.asgi.body import Receive, RequestBody
    from generation.asgi.head import Scope
    from generation.asgi.lean import LeanRoute


_NO_PLACE = contextlib.nullcontext()


class StockHandler(ASGIHandler):
    """Django's own, except that an unreadable Content-Type is the client's fault, not a bug."""

    request_class = Request

    def create_request(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> Any:
        try:
            return super().create_request(scope, body_file)
        except (DjangoBadRequest, ValueError):
            return None, HttpResponseBadRequest("the Content-Type can't be read")


class LeanHandler(StockHandler):
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
            async with _cancelled_when_client_leaves(receive):
                response = await route.view(request, *match.args, **match.kwargs)
        if response.status_code >= BadRequest.status:
            raise_for_error_page(response)
        return response


@contextlib.asynccontextmanager
async def _cancelled_when_client_leaves(receive: Receive) -> AsyncIterator[None]:
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
