"""Who serves a view: Django's own handler with its middleware, or the lean one without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from io import BytesIO
from time import monotonic
from typing import IO, TYPE_CHECKING, Any

from asgiref.sync import AsyncToSync, sync_to_async
from django.core.exceptions import BadRequest as DjangoBadRequest
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponseBadRequest

from generation.asgi.body import ClientLeft
from generation.asgi.lean import raise_for_error_page
from generation.asgi.request import Request
from generation.errors import BadRequest, StaccatoError, release_frames
from generation.runtime import process as runtime
from generation.telemetry.logs import THROTTLE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.urls import ResolverMatch

    from generation.asgi.body import Receive, RequestBody
    from generation.asgi.head import Scope
    from generation.asgi.lean import LeanRoute, Response


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

    _middleware_chain: Any  # Django's; the stubs leave it out

    def __init__(self) -> None:
        super().__init__()
        self._refused_hosts = 0  # since the last report
        self._report_at = 0.0

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  # Django's signature
        """As for WSGI, so that one thread serves a page from its session to its HTML.

        Django's asynchronous chain enters a thread 19 times a page, this one 7 times. Each time,
        the page waits for the event loop, which waits for the threads of other pages.
        """
        super().load_middleware(is_async=False)
        chain = self._middleware_chain
        # What comes before an asynchronous middleware, e.g. for static files, is asynchronous, too.
        self._middleware_chain = (
            chain.awaitable if isinstance(chain, AsyncToSync) else sync_to_async(chain)
        )

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
    ) -> Response:
        """Raises a `StaccatoError`, whatever the view raises, or `ClientLeft`."""
        content = BytesIO()
        request, _refusal = self.create_request(scope, content)
        if request is None:
            raise BadRequest("the Content-Type can't be read")
        request.resolver_match = match
        try:
            place = _NO_PLACE if route.entrance is None else await route.entrance(request)
            with place:
                await body.read(content, admitted=place is not _NO_PLACE)
                # Django's own way to the body has a limit of its own, of 2.5 MB.
                request._body = content.getvalue()  # noqa: SLF001  # where Django keeps it
                with WhileClientStays(receive):
                    response = await route.view(request, *match.args, **match.kwargs)
        except StaccatoError as error:
            if error.is_paced:
                grant = getattr(request, "grant", None)
                release_frames(error)
                del request, content  # the body, since many refusals may wait
                with WhileClientStays(body.until_left):
                    await runtime.current().admission.refusal_pace.wait(grant and grant.key_id)
            raise
        if response.status_code >= BadRequest.status:
            raise_for_error_page(response)
        return response


class WhileClientStays:
    """Cancels the block when the client disconnects; raises `ClientLeft` then.

    A class, because a generator as the context manager takes 3 µs more.
    """

    __slots__ = ("_has_left", "_receive", "_serving", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_left = False

    def __enter__(self) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._serving: asyncio.Task[Any] = serving
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watcher.cancel()
        del self._watcher  # its end holds a frame that holds us: a cycle
        if self._has_left and kind is asyncio.CancelledError:
            self._serving.uncancel()
            raise ClientLeft from None

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._has_left = True
            self._serving.cancel()
