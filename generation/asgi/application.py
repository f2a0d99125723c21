"""The ASGI application: its lifespan, and the way of a request into a handler and out again."""

from __future__ import annotations

import contextlib
import logging
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.urls import Resolver404, get_resolver

from generation import conf
from generation.asgi import uvicorn_limits
from generation.asgi.body import BodyLimits, ClientLeft, RequestBody
from generation.asgi.event_stream import ConnectionTorn, EventStream, send_events
from generation.asgi.handlers import LeanHandler, StockHandler, WhileClientStays
from generation.asgi.head import Head
from generation.asgi.lean import find_route, render
from generation.asgi.problems import render_problem
from generation.asgi.request import HEAD
from generation.asgi.stock_places import StockPlaces
from generation.errors import StaccatoError, release_frames
from generation.runtime.collector import rare_collections
from generation.runtime.process import Runtime
from generation.telemetry import metrics
from generation.telemetry.logs import request_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.urls import ResolverMatch, URLResolver

    from generation.asgi.body import Message, Receive, Send
    from generation.asgi.lean import LeanRoute

    Scope = dict[str, Any]

logger = logging.getLogger(__name__)

CACHED_PATH_CHARS = 256  # longer paths are resolved each time, so that the cache stays small


def get_application() -> Application:
    """The counterpart of `django.core.asgi.get_asgi_application`."""
    django.setup(set_prefix=False)
    uvicorn_limits.apply()
    get_resolver().url_patterns  # noqa: B018  # an error in the URLs shows now, not in a request
    settings = conf.load()
    return Application(Runtime.open, BodyLimits(settings), settings.send_timeout)


class Application:
    """One process's ASGI callable."""

    def __init__(
        self,
        open_runtime: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        limits: BodyLimits,
        send_s: float,
    ) -> None:
        """`send_s`: how long a client may take to read a part of a stream, in seconds."""
        self._open_runtime = open_runtime
        self._limits = limits
        self._send_s = send_s
        self._lean = LeanHandler()
        self._stock = StockHandler()
        self._stock_places = StockPlaces()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            head = scope[HEAD] = Head(scope)
            request_id.set(head.request_id)  # a server serves each request in a context of its own
            match, route = _resolve(scope, head)
            is_chat = route is not None and route.takes_chats
            body = RequestBody(head, receive, self._limits, is_chat=is_chat)
            if match is not None and route is not None:
                await self._serve_lean(scope, head, body, match, route, receive, send)
            else:
                await self._serve_stock(scope, head, body, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            # A WebSocket: Django's handler would raise, and log a traceback for each.
            await receive()
            await send({"type": "websocket.close"})

    async def _serve_lean(  # noqa: PLR0913, PLR0917  # ASGI's three, and what we know so far
        self,
        scope: Scope,
        head: Head,
        body: RequestBody,
        match: ResolverMatch,
        route: LeanRoute,
        receive: Receive,
        send: Send,
    ) -> None:
        response: HttpResponse | None = None
        outcome = metrics.CLIENT_LEFT
        try:
            head.check()
            made = await self._lean.respond(match, route, scope, body, receive)
            if isinstance(made, EventStream):
                outcome = await send_events(
                    made, head.request_id, self._send_s, scope, receive, send
                )
            else:
                assert isinstance(made, HttpResponse)
                response, outcome = made, metrics.SUCCEEDED
        except ClientLeft as departure:
            release_frames(departure)
        except ConnectionTorn:
            raise
        except Exception as error:  # noqa: BLE001  # `render` logs the unexpected ones
            response, outcome = render(error, route.errors)
        finally:
            # The only place that counts requests; a server that is stopped cancels us here.
            if route.is_counted:
                metrics.request_counter(outcome).inc()
            body.release()
        if response is not None:
            await body.answer(response, send)

    async def _serve_stock(
        self, scope: Scope, head: Head, body: RequestBody, receive: Receive, send: Send
    ) -> None:
        """Read the body ourselves: Django's own handler would spool any amount of it to disk."""
        content = BytesIO()
        place = None
        try:
            head.check()
            await body.read(content)
            with WhileClientStays(receive):
                place = await self._stock_places.take()
        except ClientLeft as departure:
            release_frames(departure)
        except Exception as error:  # noqa: BLE001  # `render` logs the unexpected ones
            await body.answer(render(error, render_problem)[0], send)
        else:
            await place.serve(self._stock, scope, _replay(content, receive), send)
        finally:
            body.release()
            if place is not None:
                place.leave()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Raises nothing: a server would think that there is no lifespan, and serve."""
        await receive()
        phase = "startup"
        try:
            async with self._open_runtime():
                with rare_collections():
                    await send({"type": "lifespan.startup.complete"})
                    phase = "shutdown"
                    await receive()
        except Exception as error:  # noqa: BLE001  # it ends the process
            await send({"type": f"lifespan.{phase}.failed", "message": _why(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _why(error: Exception) -> str:
    """One line; a bug's traceback goes to the log before it."""
    if isinstance(error, ImproperlyConfigured | StaccatoError):
        return f"staccato: {error}"
    if not isinstance(error, OSError):
        logger.error("a bug ends the process", exc_info=error)
    return f"staccato: {type(error).__name__}: {' '.join(str(error).split())}"


def _resolve(scope: Scope, head: Head) -> tuple[ResolverMatch | None, LeanRoute | None]:
    """The view for a path, and its route where it is lean for this request."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root + "/"):
        path = path[len(root) :]
    match_path = _match_cached if len(path) <= CACHED_PATH_CHARS else _match
    try:
        match = match_path(get_resolver(), path)
    except Resolver404:
        return None, None
    route = find_route(match.func)
    if route is None or (route.when is not None and not route.when(head.headers)):
        return match, None
    return match, route


def _match(resolver: URLResolver, path: str) -> ResolverMatch:
    return resolver.resolve(path)


# Django tries pattern after pattern, and each caller comes back with the same few paths.
_match_cached = lru_cache(maxsize=1024)(_match)


def _replay(content: BytesIO, receive: Receive) -> Receive:
    """Receives a body that has been read already, and then whatever comes."""
    ahead: list[Message] = [
        {"type": "http.request", "body": content.getvalue(), "more_body": False}
    ]

    async def replay() -> Message:
        return ahead.pop() if ahead else await receive()

    return replay
