"""The ASGI application: lifespan, a lean handler for hop-free views, Django's own for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.urls import Resolver404, get_resolver

from generation import conf, problems
from generation.errors import BodyTooLarge, StaccatoError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from django.http import HttpResponse
    from django.urls import ResolverMatch

    Scope = dict[str, Any]
    Message = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger(__name__)

LINGER_S = 2.0  # how long a refused body is read on, so that its sender sees the refusal


def get_application() -> Application:
    """The counterpart of `django.core.asgi.get_asgi_application`."""
    django.setup(set_prefix=False)
    from generation.runtime import Runtime  # needs the models, so it can only come now

    get_resolver().url_patterns  # noqa: B018  # a fault in the URLs shows now, not in a request
    return Application(Runtime.open, LeanHandler(conf.load().max_body_bytes))


class Application:
    """One process's ASGI callable."""

    def __init__(
        self,
        open_runtime: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        lean: LeanHandler,
    ) -> None:
        self._open_runtime = open_runtime
        self._lean = lean
        self._stock = ASGIHandler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and (match := _resolve(scope)) is not None:
            await self._lean.serve(match, scope, receive, send)
        else:
            await self._stock(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._open_runtime():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except ImproperlyConfigured as error:
            await send({"type": "lifespan.startup.failed", "message": f"staccato: {error}"})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _resolve(scope: Scope) -> ResolverMatch | None:
    """The view for a path, where that view is hop-free."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root + "/"):
        path = path[len(root) :]
    try:
        match = get_resolver().resolve(path)
    except Resolver404:
        return None
    hop_free = getattr(match.func, "hop_free", None)
    return match if hop_free is not None and hop_free() else None


class _ClientLeft(Exception):  # no fault of anybody's
    pass


class LeanHandler(ASGIHandler):
    """Serves one async view: no middleware, no signals, no thread is entered.

    Django's own handler makes at least two thread hops for each request, and with the
    default middleware fifteen.
    """

    def __init__(self, max_body_bytes: int) -> None:
        # ASGIHandler's own would load the middleware.
        self._max_body_bytes = max_body_bytes

    async def serve(self, match: ResolverMatch, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(match, scope, receive)
        except _ClientLeft:
            return
        except Exception:
            logger.exception("a request failed of a bug")
            response = problems.respond(StaccatoError.from_bug())
        response = problems.from_plain(response)
        response["Content-Length"] = str(len(response.content))
        await self.send_response(response, send)

    async def _respond(self, match: ResolverMatch, scope: Scope, receive: Receive) -> HttpResponse:
        try:
            body = await self._read(receive)
        except BodyTooLarge as error:
            return problems.respond(error)
        request, refusal = self.create_request(scope, BytesIO(body))
        if request is None:
            return cast("HttpResponse", refusal)
        request.resolver_match = match
        async with _cancelled_when_client_leaves(receive):
            return cast("HttpResponse", await match.func(request, *match.args, **match.kwargs))

    async def _read(self, receive: Receive) -> bytes:
        """The body. Raises `BodyTooLarge` as soon as it is, `_ClientLeft` when cut short."""
        chunks = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientLeft
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                await _linger(receive)
                raise BodyTooLarge(f"the body is larger than {self._max_body_bytes} bytes")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


async def _linger(receive: Receive) -> None:
    """Read on for a moment: closing with unread data would reset the connection, and the
    sender might never see why."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (message := await receive()).get("more_body", False):
                if message["type"] == "http.disconnect":
                    raise _ClientLeft


@contextlib.asynccontextmanager
async def _cancelled_when_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects; raises `_ClientLeft` then."""
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
        raise _ClientLeft from None
    finally:
        watcher.cancel()
