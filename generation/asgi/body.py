"""The body of a request: read within limits of size, of time and of memory for all bodies."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from generation.errors import BodyTooLarge, BodyTooSlow, TooManyInFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from io import BytesIO

    from django.http import HttpResponse

    from generation.asgi.head import Head
    from generation.conf import Settings

    Message = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

SMALL_BODY_BYTES = 65_536  # only larger bodies share the room below
LARGE_BODIES_BYTES = 8 * 1024 * 1024  # read at once for admitted callers; as much for all others
LINGER_S = 2.0  # how long we go on reading a refused body, so that its sender gets the refusal


class ClientLeft(Exception):
    """The client has closed its connection."""


class RequestBody:
    """The body of one request."""

    def __init__(self, head: Head, receive: Receive, limits: BodyLimits) -> None:
        self._head = head
        self._receive = receive
        self._limits = limits
        self._is_complete = not head.has_body

    async def read(self, into: BytesIO, *, admitted: bool = False) -> None:
        """Raises `BodyTooLarge` at the first byte too many, `BodyTooSlow`, `TooManyInFlight`
        where other large bodies take all the room, and `ClientLeft`."""
        length = self._head.length
        if length is not None and length > self._limits.max_bytes:
            raise self._too_large_error()
        room = None
        if self._head.has_body and (length is None or length > SMALL_BODY_BYTES):
            room = await self._limits.acquire(admitted=admitted)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._read(into)
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive in {self._limits.seconds:g} s") from None
        finally:
            if room is not None:
                room.release()

    async def _read(self, into: BytesIO) -> None:
        size = 0
        while True:
            message = await self._next()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limits.max_bytes:
                raise self._too_large_error()
            into.write(chunk)
            if self._is_complete:
                into.seek(0)
                return

    def _too_large_error(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._limits.max_bytes} bytes")

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self._is_complete = not message.get("more_body", False)
        return message

    async def answer(self, response: HttpResponse, send: Send) -> None:
        """Send the response, even before the whole body has been read.

        Usually the server drains the rest of the body. If the body may be endless, close the
        connection, but linger first: closing a socket with unread data sends a reset, and the
        client may lose the response.
        """
        endless = self._head.length is None or self._head.length > self._limits.max_bytes
        lingers = not self._is_complete and endless
        if lingers:
            response["Connection"] = "close"
        await self._start(response, send)
        if lingers:
            await send({"type": "http.response.body", "body": response.content, "more_body": True})
            with contextlib.suppress(TimeoutError, ClientLeft):
                async with asyncio.timeout(LINGER_S):
                    while not self._is_complete:
                        await self._next()
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": response.content})

    async def _start(self, response: HttpResponse, send: Send) -> None:
        headers = [
            (name.encode("ascii"), value.encode("latin1")) for name, value in response.items()
        ]
        headers.append((b"content-length", b"%d" % len(response.content)))
        headers.append((b"x-content-type-options", b"nosniff"))
        headers.append((b"x-request-id", self._head.request_id.encode("ascii")))
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )


class BodyLimits:
    """The limits of each body, and the room that the large bodies of a process share."""

    def __init__(self, settings: Settings) -> None:
        self.max_bytes = settings.max_body_bytes
        self.seconds = settings.body_timeout
        # Kept apart, so that strangers at the admin's login take no room from admitted callers.
        places = max(1, LARGE_BODIES_BYTES // self.max_bytes)
        self._admitted = asyncio.Semaphore(places)
        self._others = asyncio.Semaphore(places)

    async def acquire(self, *, admitted: bool) -> asyncio.Semaphore:
        """Wait for room for one large body; the caller releases it. Raises `TooManyInFlight`.

        A body of unknown length counts as large: the server hands over whatever it has buffered.
        The room for a whole body is taken at once, because readers that each hold a part could
        wait for each other.
        """
        room = self._admitted if admitted else self._others
        try:
            async with asyncio.timeout(self.seconds):
                await room.acquire()
        except TimeoutError:
            raise TooManyInFlight("other large bodies are being read", retry_after=1) from None
        return room
