"""Django's own pages in the service: the admin, the docs, static files, `/`, within bounds."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from generation.asgi.body import BodyLimits, ClientLeft, RequestBody
from generation.asgi.handlers import StockHandler, WhileClientStays
from generation.asgi.lean import render
from generation.asgi.problems import render_problem
from generation.asgi.request import HEAD
from generation.asgi.stock_places import StockPlaces
from generation.errors import NotFound, release_frames

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from generation.asgi.body import Message, Receive, Send
    from generation.asgi.head import Head


API_ONLY = (
    "this process serves the API only: pages, and what a session opens, are served by another one"
)


class BoundedPages:
    """An ASGI application for what is no lean route."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._handler = StockHandler()
        self._places = StockPlaces()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Read the body ourselves: Django's own handler would spool any amount of it to disk."""
        if scope["type"] != "http":
            await _refuse_socket(receive, send)
            return
        head: Head = scope[HEAD]
        body = RequestBody(head, receive, self._limits)
        content = BytesIO()
        place = None
        try:
            head.check()
            await body.read(content)
            with WhileClientStays(receive):
                place = await self._places.take()
        except ClientLeft as departure:
            release_frames(departure)
        except Exception as error:  # noqa: BLE001  # `render` logs the unexpected ones
            await body.answer(render(error, render_problem)[0], send)
        else:
            await place.serve(self._handler, scope, _replay(content, receive), send)
        finally:
            body.release()
            if place is not None:
                place.leave()


class NoPages:
    """In the place of pages, in a process that serves callers alone."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _refuse_socket(receive, send)
            return
        body = RequestBody(scope[HEAD], receive, self._limits)
        await body.answer(render_problem(NotFound(API_ONLY)), send)
        body.release()


async def _refuse_socket(receive: Receive, send: Send) -> None:
    """Of a WebSocket: Django's handler would raise, and log a traceback for each."""
    await receive()
    await send({"type": "websocket.close"})


def _replay(content: BytesIO, receive: Receive) -> Receive:
    """Receives a body that has been read already, and then whatever comes."""
    ahead: list[Message] = [
        {"type": "http.request", "body": content.getvalue(), "more_body": False}
    ]

    async def replay() -> Message:
        return ahead.pop() if ahead else await receive()

    return replay
