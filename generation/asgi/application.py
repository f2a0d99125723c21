"""The ASGI application: lifespan, a lean handler for hop-free views, Django's own for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import lru_cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, cast

import django
from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponseBadRequest
from django.urls import Resolver404, get_resolver

from generation import conf
from generation.asgi import problems
from generation.asgi.body import ClientLeft, Gate, Head, Inflow
from generation.errors import StaccatoError, release_frames
from generation.runtime import resources as limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from django.http import HttpResponse
    from django.urls import ResolverMatch, URLResolver

    from generation.asgi.body import Message, Receive, Send

    Scope = dict[str, Any]

logger = logging.getLogger(__name__)


def get_application() -> Application:
    """The counterpart of `django.core.asgi.get_asgi_application`."""
    django.setup(set_prefix=False)
    from generation.runtime.process import Runtime  # needs the models, so it can only come now

    get_resolver().url_patterns  # noqa: B018  # a fault in the URLs shows now, not in a request
    return Application(Runtime.open, LeanHandler(), Gate(conf.load()))


class Application:
    """One process's ASGI callable."""

    def __init__(
        self,
        open_runtime: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        lean: LeanHandler,
        gate: Gate,
    ) -> None:
        self._open_runtime = open_runtime
        self._lean = lean
        self._gate = gate
        self._stock = StockHandler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            # A WebSocket: Django's handler would raise, and log a traceback for each.
            await receive()
            await send({"type": "websocket.close"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = Head(scope)
        body = Inflow(head, receive, self._gate)
        try:
            response = await self._respond(scope, head, body, receive)
        except ClientLeft as departure:
            release_frames(departure)
            return
        except StaccatoError as error:
            response = problems.respond(error)
            release_frames(error)
        except Exception:
            logger.exception("a request failed of a bug")
            response = problems.respond(StaccatoError.from_bug())
        if isinstance(response, BytesIO):
            await self._stock(scope, _replay(response, receive), send)
            return
        response = problems.from_plain(response)
        if "X-Request-ID" not in response and head.request_id:  # refused before a view knew it
            response["X-Request-ID"] = head.request_id
        await body.answer(response, send)

    async def _respond(
        self, scope: Scope, head: Head, body: Inflow, receive: Receive
    ) -> HttpResponse | BytesIO:
        """The response; or the body, where Django's own handler is to respond.

        That would read whatever comes, and spool it to disk.
        """
        head.check()
        match = _resolve(scope, head)
        if match is not None:
            return await self._lean.respond(match, scope, head, body, receive)
        content = BytesIO()
        await body.read(content)
        return content

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._open_runtime():
                with limits.seldom_collecting():
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
        except ImproperlyConfigured as error:
            await send({"type": "lifespan.startup.failed", "message": f"staccato: {error}"})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _resolve(scope: Scope, head: Head) -> ResolverMatch | None:
    """The view for a path, where that view is hop-free for this request."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root + "/"):
        path = path[len(root) :]
    try:
        match = _match(get_resolver(), path)
    except Resolver404:
        return None
    hop_free = getattr(match.func, "hop_free", None)
    return match if hop_free is not None and hop_free(head.headers) else None


@lru_cache(maxsize=1024)
def _match(resolver: URLResolver, path: str) -> ResolverMatch:
    """Django tries pattern after pattern, and each caller comes back with the same few paths."""
    return resolver.resolve(path)


def _replay(content: BytesIO, receive: Receive) -> Receive:
    """A body that was read, and then whatever comes."""
    ahead: list[Message] = [
        {"type": "http.request", "body": content.getvalue(), "more_body": False}
    ]

    async def replay() -> Message:
        return ahead.pop() if ahead else await receive()

    return replay


class StockHandler(ASGIHandler):
    """Django's own, which would let what a Content-Type can break out as an error of ours."""

    def create_request(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> Any:
        try:
            return super().create_request(scope, body_file)
        except (BadRequest, ValueError):
            return None, HttpResponseBadRequest("the Content-Type can't be read")


class LeanHandler(StockHandler):
    """Serves one async view: no middleware, no signals, no thread is entered.

    Django's own handler makes at least two thread hops for each request, and with the
    default middleware fifteen.
    """

    def __init__(self) -> None:
        # ASGIHandler's own would load the middleware.
        pass

    async def respond(
        self, match: ResolverMatch, scope: Scope, head: Head, body: Inflow, receive: Receive
    ) -> HttpResponse:
        """Raises a `StaccatoError` for what the entrance refuses, `ClientLeft`."""
        content = BytesIO()
        request, refusal = self.create_request(scope, content)
        if request is None:
            return cast("HttpResponse", refusal)
        request.resolver_match = match
        entrance = getattr(match.func, "entrance", None)
        if entrance is None:
            await body.read(content)
        else:
            async with entrance(request, head):
                await body.read(content, admitted=True)
        async with _cancelled_when_client_leaves(receive):
            response: HttpResponse = await match.func(request, *match.args, **match.kwargs)
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
