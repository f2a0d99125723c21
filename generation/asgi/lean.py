"""`@lean`: views that are served without middleware, signals or a thread.

Django's own handler makes at least two thread hops for each request, and fifteen with the
default middleware.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from django.db import InterfaceError, OperationalError, connections
from django.db.transaction import non_atomic_requests
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)

from generation.asgi.problems import render_problem
from generation.asgi.request import Request
from generation.errors import (
    BadRequest,
    DatabaseUnavailable,
    MethodNotAllowed,
    NotFound,
    RuntimeNotOpen,
    StaccatoError,
    release_frames,
)
from generation.runtime.process import HOW_TO_SERVE
from generation.telemetry.logs import throttled_logger

logger = throttled_logger(__name__)

Response = HttpResponse | StreamingHttpResponse
View = Callable[..., Coroutine[Any, Any, Response]]
Entrance = Callable[[Request], Awaitable[AbstractContextManager[object]]]
Condition = Callable[[Mapping[bytes, bytes]], bool]
ErrorRenderer = Callable[[StaccatoError], HttpResponse]


@dataclass(frozen=True, slots=True)
class LeanRoute:
    """How one view is served."""

    view: View
    entrance: Entrance | None
    when: Condition | None
    errors: ErrorRenderer
    is_counted: bool
    takes_chats: bool
    is_operators: bool


_routes: dict[Callable[..., object], LeanRoute] = {}


def lean(  # noqa: PLR0913  # each says something else of a route, by name
    *,
    entrance: Entrance | None = None,
    when: Condition | None = None,
    errors: ErrorRenderer = render_problem,
    is_counted: bool = False,
    takes_chats: bool = False,
    is_operators: bool = False,
) -> Callable[[View], View]:
    """Serve an async view without middleware, signals or a thread.

    Such a view must not use the ORM, sessions or anything synchronous that waits.

    `entrance` is awaited before the body is read; it raises a `StaccatoError` to refuse the
    request, and returns what is to be exited when the view has answered.
    `when` decides by the request's headers; otherwise Django's own handler serves the view.
    `errors` renders every error of the view and its entrance, also those raised before the body
    is read.
    `is_counted` says whether `staccato_requests_total` counts the view's requests.
    `takes_chats`: its bodies may have STACCATO_MAX_CHAT_BODY_BYTES, since each holds a whole
    conversation.
    `is_operators`: it belongs to the pages, where STACCATO_SERVE separates them from callers.
    """

    def register(view: View) -> View:
        return _register(
            LeanRoute(view, entrance, when, errors, is_counted, takes_chats, is_operators)
        )

    return register


def adopt(view: Callable[..., object], callback: Callable[..., Any]) -> Callable[..., Any]:
    """Serve `callback` as its view is: a framework has wrapped the view to put it into the URLs."""
    route = _routes.get(view)
    return callback if route is None else _register(replace(route, view=callback))


def find_route(callback: Callable[..., object]) -> LeanRoute | None:
    return _routes.get(callback)


def _register(route: LeanRoute) -> View:
    @functools.wraps(route.view)
    async def elsewhere(request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """Serves the view in another handler, which would not render its errors."""
        if route.entrance is not None:  # which only our own handler passes
            return render(RuntimeNotOpen(HOW_TO_SERVE), route.errors)[0]
        try:
            return await route.view(request, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # `render` logs the unexpected ones
            return render(error, route.errors)[0]

    for alias in connections:  # an async view can't run in a transaction of the ORM
        non_atomic_requests(using=alias)(elsewhere)
    _routes[route.view] = _routes[elsewhere] = route
    return elsewhere


def render(error: Exception, errors: ErrorRenderer) -> tuple[HttpResponse, str]:
    """The response to an error, and the error's slug. Logs whatever is a bug."""
    if isinstance(error, StaccatoError):
        known = error
    elif isinstance(error, Http404):
        known = NotFound("nothing matches this address")
    elif isinstance(error, InterfaceError | OperationalError):
        # The hot path has errors of its own: Django's come from a session, or an operator's form.
        logger.warning("a request can't use Django's connection: %s", " ".join(str(error).split()))
        known = DatabaseUnavailable("the database can't be reached now", retry_after=1)
    else:
        logger.error("a bug made a request fail", exc_info=error)
        known = StaccatoError.from_bug()
    response = errors(known)
    release_frames(error)
    return response, known.slug


def raise_for_error_page(response: Response) -> None:
    """Raises one of our errors in place of a framework's error page (404, 405, …)."""
    if not response.get("Content-Type", "").startswith("text/"):
        return
    if isinstance(response, HttpResponseNotAllowed):
        raise MethodNotAllowed("the address does not take this method", allow=response["Allow"])
    if response.status_code == NotFound.status:
        raise NotFound("nothing matches this address")
    if response.status_code == BadRequest.status:
        raise BadRequest(response.content.decode() or "the request can't be read")
