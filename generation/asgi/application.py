"""The ASGI application: its lifespan, and the way of a request to a lean route and out again."""

from __future__ import annotations

import asyncio
import contextlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.urls import Resolver404, get_resolver

from generation import conf
from generation.asgi.body import BodyLimits, ClientLeft, RequestBody
from generation.asgi.bounded_pages import API_ONLY
from generation.asgi.event_stream import ConnectionTorn, EventStream, send_events
from generation.asgi.handlers import LeanHandler
from generation.asgi.head import Head
from generation.asgi.lean import LeanRoute, find_route, render
from generation.asgi.request import HEAD
from generation.errors import NotFound, StaccatoError, release_frames
from generation.python_api import loop_thread
from generation.runtime import process
from generation.runtime.process import Runtime
from generation.telemetry import metrics
from generation.telemetry.logs import request_id, throttled_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from django.urls import ResolverMatch, URLResolver

    from generation.asgi.body import Receive, Send

    Scope = MutableMapping[str, Any]
    ASGI: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
    Found: TypeAlias = tuple[ResolverMatch, LeanRoute]

logger = throttled_logger(__name__)

CACHED_PATH_CHARS = 256  # longer paths are resolved each time, so that the cache stays small
# A project's other paths are left to its own handler, which resolves them in its own way.
_MAY_BE_OURS = re.compile(r"/(?:api|v1|livez|readyz|metrics)(?:/|$)")


def get_application(application: ASGI | None = None) -> Application:
    """Returns a project's ASGI application with our routes in front of it.

    `application` is what serves everything else, WebSockets included: the project's own, or
    Django's where none is given. Nothing of it is bounded or changed.
    """
    if application is None:
        application = get_asgi_application()
    settings = conf.load()
    return Application(
        Runtime.open,
        BodyLimits(settings),
        settings.send_timeout,
        application,
        find_runtime=loop_thread.aruntime,
    )


class Application:
    """One process's ASGI callable."""

    serves_callers = serves_pages = True

    def __init__(
        self,
        open_runtime: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        limits: BodyLimits,
        send_s: float,
        others: ASGI,
        find_runtime: Callable[[], Awaitable[Runtime]] | None = None,
    ) -> None:
        """`send_s`: how long a client may take to read a part of a stream, in seconds.

        `others` serves what is no lean route. `find_runtime` opens the runtime at its first use,
        where the server, or a router in front of us, passes no lifespan on.
        """
        self._open_runtime = open_runtime
        self._limits = limits
        self._send_s = send_s
        self._others = others
        self._find_runtime = find_runtime
        self._has_lifespan = False
        self._lean = LeanHandler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            head = scope[HEAD] = Head(scope)
            request_id.set(head.request_id)  # a server serves each request in a context of its own
            found = _resolve(scope)
            if found is not None:
                await self._serve_ours(scope, head, found, receive, send)
            else:
                await self._others(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._others(scope, receive, send)

    async def _serve_ours(
        self, scope: Scope, head: Head, found: Found, receive: Receive, send: Send
    ) -> None:
        """Serves in the loop of the runtime. It is another one where no lifespan has opened it, and
        so its first use did."""
        now = process.opened()
        if now is None and self._find_runtime is not None and not self._has_lifespan:
            try:
                now = await self._find_runtime()
            except Exception as error:  # noqa: BLE001  # the route says that nothing is open
                logger.error("the runtime can't be opened: %s", _why(error))  # noqa: TRY400  # in a line
        when = found[1].when
        if when is not None and not when(head.headers):
            await self._others(scope, receive, send)
        elif now is None or now.loop is asyncio.get_running_loop():
            await self._serve_lean(scope, found, receive, send)
        else:
            await now.arun(self._serve_lean(scope, found, _bridge(receive), _bridge(send)))

    async def _serve_lean(self, scope: Scope, found: Found, receive: Receive, send: Send) -> None:
        match, route = found
        head: Head = scope[HEAD]
        body = RequestBody(head, receive, self._limits, is_chat=route.takes_chats)
        response: HttpResponse | None = None
        outcome = metrics.CLIENT_LEFT
        try:
            head.check()
            self._require_served(route)
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

    def _require_served(self, route: LeanRoute) -> None:
        is_callers = route.entrance is not None and not route.is_operators
        if is_callers and not self.serves_callers:
            raise NotFound("this process serves pages only: the API is served by another one")
        if route.is_operators and not self.serves_pages:
            raise NotFound(API_ONLY)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Raises nothing: a server would think that there is no lifespan, and serve."""
        self._has_lifespan = True
        await receive()
        phase = "startup"
        try:
            async with self._open_runtime():
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


def _bridge(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Returns the server's `receive` or `send` for use in another loop than the server's."""
    loop = asyncio.get_running_loop()

    async def bridged(*args: Any) -> Any:
        async def there() -> Any:
            return await call(*args)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))

    return bridged


def _resolve(scope: Scope) -> Found | None:
    """Returns how a path matches, and its lean route; None where that has none."""
    path: str = scope["path"]
    if not _MAY_BE_OURS.search(path):
        return None
    root = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root + "/"):
        path = path[len(root) :]
    match_path = _match_cached if len(path) <= CACHED_PATH_CHARS else _match
    try:
        match = match_path(get_resolver(), path)
    except Resolver404:
        return None
    except Exception:  # noqa: BLE001  # a converter of the project's that needs a thread, e.g.
        return None
    route = find_route(match.func)
    return None if route is None else (match, route)


def _match(resolver: URLResolver, path: str) -> ResolverMatch:
    return resolver.resolve(path)


# Django tries pattern after pattern, and each caller comes back with the same few paths.
_match_cached = lru_cache(maxsize=1024)(_match)
