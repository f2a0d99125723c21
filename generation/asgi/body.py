"""The body of a request: read within limits of size, of time and of memory for all bodies."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from typing import TYPE_CHECKING, Any

from generation.errors import BodyTooLarge, BodyTooSlow, TooManyInFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from io import BytesIO

    from django.http import HttpResponse
    from django.http.response import HttpResponseBase

    from generation.asgi.head import Head
    from generation.conf import Settings

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

SMALL_BODY_BYTES = 65_536
# How much of the bodies of each kind may be in memory at once. Strangers' take none of the room of
# admitted callers, nor their large bodies that of a login.
LARGE_BODIES_BYTES = 8 * 1024 * 1024
SMALL_BODIES_OF_STRANGERS_BYTES = 32 * 1024 * 1024
_ENCODED = "encoded_headers"
LINGER_S = 2.0  # how long we go on reading a refused body, so that its sender gets the refusal


class ClientLeft(Exception):
    """The client has closed its connection."""


class RequestBody:
    """The body of one request."""

    def __init__(
        self, head: Head, receive: Receive, limits: BodyLimits, *, is_chat: bool = False
    ) -> None:
        self._head = head
        self._receive = receive
        self._limits = limits
        self._is_chat = is_chat
        self._max_bytes = limits.max_chat_bytes if is_chat else limits.max_bytes
        self._is_complete = not head.has_body
        self._release: Callable[[], None] | None = None  # gives back the room that it has

    async def read(self, into: BytesIO, *, admitted: bool = False) -> None:
        """Raises `BodyTooLarge` at the first byte too many, `BodyTooSlow`, `TooManyInFlight`
        where other bodies take all the room, and `ClientLeft`.

        A stranger's body keeps its room until `release()`; an admitted caller's is counted
        elsewhere once it has been read.
        """
        length = self._head.length
        if length is not None and length > self._max_bytes:
            raise self._too_large_error()
        if self._head.has_body:
            self._release = await self._limits.acquire(
                length, admitted=admitted, is_chat=self._is_chat
            )
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._read(into)
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive in {self._limits.seconds:g} s") from None
        finally:
            if admitted:
                self.release()

    def release(self) -> None:
        """Give back the room, once."""
        release, self._release = self._release, None
        if release is not None:
            release()

    async def _read(self, into: BytesIO) -> None:
        size = 0
        while True:
            message = await self._next()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large_error()
            into.write(chunk)
            if self._is_complete:
                into.seek(0)
                return

    def _too_large_error(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._max_bytes} bytes")

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self._is_complete = not message.get("more_body", False)
        return message

    async def until_left(self) -> Message:
        """Drop what comes of the body. Returns the message that the client has left."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return message
            self._is_complete = not message.get("more_body", False)

    async def answer(self, response: HttpResponse, send: Send) -> None:
        """Send the response, even before the whole body has been read.

        Usually the server drains the rest of the body. If the body may be endless, close the
        connection. Where it closes, linger first: closing a socket with unread data sends a reset,
        and the client may lose the response.
        """
        endless = self._head.length is None or self._head.length > self._max_bytes
        lingers = not self._is_complete and (endless or self._head.closes)
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
        headers = wire_headers(response, self._head.request_id)
        headers.append((b"content-length", b"%d" % len(response.content)))
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )


def wire_headers(response: HttpResponseBase, request_id: str) -> list[tuple[bytes, bytes]]:
    """Returns a response's headers, and those that each of ours has."""
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers += getattr(response, _ENCODED, ())
    headers.append((b"x-content-type-options", b"nosniff"))
    headers.append((b"x-request-id", request_id.encode("ascii")))
    return headers


def set_encoded(response: HttpResponse, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Add headers that are the same for many responses: Django's checks of each, and the encoding,
    take 4 µs for two."""
    setattr(response, _ENCODED, headers)


class BodyLimits:
    """The limits of each body, and the room that the bodies of a process share."""

    def __init__(self, settings: Settings) -> None:
        self.max_bytes = settings.max_body_bytes
        self.max_chat_bytes = settings.max_chat_body_bytes
        self.seconds = settings.body_timeout
        large = max(LARGE_BODIES_BYTES, self.max_bytes)
        self._admitted_large = Room(large)
        self._large = Room(large)
        self._chats = Room(max(large, self.max_chat_bytes))  # all of them are admitted
        self._small = Room(SMALL_BODIES_OF_STRANGERS_BYTES)

    async def acquire(
        self, length: int | None, *, admitted: bool, is_chat: bool
    ) -> Callable[[], None] | None:
        """Wait for room for a body; returns what gives it back. Raises `TooManyInFlight`.

        A body of unknown length counts as the largest: the server hands over whatever it has
        buffered. The room is taken at once, because readers that each hold a part could wait for
        each other.
        """
        largest = self.max_chat_bytes if is_chat else self.max_bytes
        size = largest if length is None else length
        is_large = size > SMALL_BODY_BYTES or length is None
        if admitted and not is_large:
            return None
        large = self._chats if is_chat else self._admitted_large if admitted else self._large
        room = large if is_large else self._small
        try:
            async with asyncio.timeout(self.seconds):
                await room.acquire(size)
        except TimeoutError:
            raise TooManyInFlight("other bodies are being read", retry_after=1) from None
        return functools.partial(room.release, size)


class Room:
    """A number of bytes that several share: first come, first served."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size: int) -> None:
        if size <= self._free and not self._waiting:
            self._free -= size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, granted)
        self._waiting.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # just before
                self.release(size)
            else:
                with contextlib.suppress(ValueError):  # it has just been passed over
                    self._waiting.remove(entry)
                self._grant()
            raise

    def release(self, size: int) -> None:
        self._free += size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, granted = self._waiting.popleft()
            if not granted.done():  # else it was cancelled, and will not take its share
                self._free -= size
                granted.set_result(None)
