"""A response that is sent while it is made: a stream of server-sent events (SSE)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from django.http import StreamingHttpResponse

from generation.asgi.body import ClientLeft, wire_headers
from generation.asgi.handlers import WhileClientStays
from generation.asgi.uvicorn_limits import ABORT
from generation.asgi.uvicorn_writing import Sink, find_cycle
from generation.errors import StaccatoError, release_frames
from generation.tasks import in_own_task
from generation.telemetry import metrics
from generation.timing import FairTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from generation.asgi.body import Receive, Send
    from generation.asgi.head import Scope

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/event-stream; charset=utf-8"
# Proxies would compress the events, and hold them back until they have a buffer full.
_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
KEEP_ALIVE_S = 15.0
# A blank line after it would end an event, and some readers take each such for a message.
KEEP_ALIVE = b": keep-alive\n"
SEND_BYTES = 65_536  # at once: as much as uvicorn buffers before it waits for the reader
ABORT_S = 2.0


class EventSource(ABC):
    """What a view gives to an `EventStream`: encoded events, while they come."""

    outcome = metrics.SUCCEEDED  # what the request is counted as, once all events are sent
    is_over = False  # `read()` has returned the last events; if it stays False, b"" says so
    is_sent = False  # all events

    @abstractmethod
    async def read(self) -> bytes:
        """Returns the next events, whole ones; b"" at the end.

        May be cancelled and called again, and loses nothing by it.
        """

    def push_to(self, sink: Sink) -> None:  # noqa: B027  # a source may leave it at `read()`
        """Events that come while `read()` waits may go to this sink from now on, if it is ready."""

    @abstractmethod
    def close(self) -> None:
        """Nobody reads any more, whether all has been read or not. Called once."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while events := await self.read():
            yield events


class EventStream(StreamingHttpResponse):
    """Closes its source when it has been sent, and when it could not be."""

    def __init__(self, source: EventSource, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(source, content_type=CONTENT_TYPE, headers={**_HEADERS, **(headers or {})})
        self.source = source


class ConnectionTorn(Exception):
    """Raised for a server that closes a connection only if the application fails."""


class _ClientTooSlow(Exception):
    pass


async def send_events(  # noqa: PLR0913, PLR0917  # ASGI's three, and what they are needed for
    stream: EventStream, request_id: str, send_s: float, scope: Scope, receive: Receive, send: Send
) -> str:
    """Returns what the request is counted as. `send_s`: the longest time for a client to take
    what has been sent, in seconds; a slower one counts as disconnected.

    A stream that can't go on ends in a torn connection, because clients take a clean end for the
    end of the answer. Raises `ConnectionTorn` if the server has no other way to do that.
    """
    cycle = find_cycle(send)
    sending = _send_all(stream, request_id, send_s, send, cycle)
    try:
        with WhileClientStays(receive):
            try:
                # Its steps are many if each event is one.
                await (in_own_task(sending) if cycle is None else sending)
            finally:  # not in the task, which may be cancelled before its first step
                stream.source.close()
    except ClientLeft as departure:
        release_frames(departure)
        # A server reports a disconnect after the last byte, too.
        return stream.source.outcome if stream.source.is_sent else metrics.CLIENT_LEFT
    except _ClientTooSlow:
        logger.info("a client took more than %g s to read a part of a stream", send_s)
        await _tear(scope, receive)
        return metrics.CLIENT_LEFT
    except Exception as bug:
        logger.exception("a bug broke off a stream")
        release_frames(bug)
        await _tear(scope, receive)
        return StaccatoError.slug
    return stream.source.outcome


async def _send_all(
    stream: EventStream, request_id: str, send_s: float, send: Send, cycle: Any
) -> None:
    message: dict[str, Any] = {
        "type": "http.response.start",
        "status": stream.status_code,
        "headers": wire_headers(stream, request_id),
    }
    while not await _send_until_silent(message, stream.source, cycle, send_s, send):
        message = _body(KEEP_ALIVE)


async def _send_until_silent(
    message: dict[str, Any],
    source: EventSource,
    cycle: Any,
    send_s: float,
    send: Send,
) -> bool:
    """Sends the message, then what comes. Returns True at the end, False if the source is silent.
    Raises `_ClientTooSlow`. One timer serves all events."""
    clock = asyncio.get_running_loop().time
    is_sending = True
    try:
        async with FairTimeout(clock() + send_s) as limit:
            await send(message)
            is_sending = False
            limit.move_to(clock() + KEEP_ALIVE_S)
            if cycle is not None:
                source.push_to(Sink(cycle, limit, KEEP_ALIVE_S))
            has_more = True
            while has_more:
                events = await source.read()
                is_sending = True
                has_more = bool(events) and not source.is_over
                for at in range(0, len(events), SEND_BYTES) or (0,):
                    limit.move_to(clock() + send_s)
                    source.is_sent = not has_more and at + SEND_BYTES >= len(events)
                    part = events[at : at + SEND_BYTES]
                    await send(_body(part, more=not source.is_sent))
                is_sending = False
                limit.move_to(clock() + KEEP_ALIVE_S)
    except TimeoutError:
        if is_sending:
            raise _ClientTooSlow from None
        return False
    return True


def _body(content: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def _tear(scope: Scope, receive: Receive) -> None:
    """Close the connection at once, with what its client has not read."""
    abort = scope.get(ABORT)
    if abort is None:
        raise ConnectionTorn
    abort()
    with contextlib.suppress(TimeoutError):  # the server logs an answer that is open at the end
        async with asyncio.timeout(ABORT_S):
            while (await receive())["type"] != "http.disconnect":
                pass
