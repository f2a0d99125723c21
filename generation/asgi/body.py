"""What is refused before Django sees it: heads that are too large, bodies that never end."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from generation.errors import (
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    TooManyInFlight,
    UnsupportedMediaType,
    UriTooLong,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping
    from io import BytesIO

    from django.http import HttpResponse

    from generation.conf import Settings

    Scope = MutableMapping[str, Any]
    Message = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

MAX_HEADER_BYTES = 32_768  # of all headers together, names included
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8_192  # path and query
MAX_CONTENT_TYPE_BYTES = 500
SMALL_BODY_BYTES = 65_536  # larger ones are rationed
LARGE_BODIES_BYTES = 8 * 1024 * 1024  # of strangers, read at once; as much again of callers
LINGER_S = 2.0  # how long a refused body is read on, so that its sender sees the refusal
# The last is what `curl -d` says of anything; nothing is read from such a body but JSON.
JSON_TYPES = frozenset({b"application/json", b"application/x-www-form-urlencoded"})


_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def fit_request_id(given: str) -> str:
    """The caller's X-Request-ID where it is fit to be kept and returned, else ''."""
    return given if _REQUEST_ID.fullmatch(given) else ""


class ClientLeft(Exception):  # no fault of anybody's
    pass


class Head:
    """The request's head as far as the edge judges it."""

    def __init__(self, scope: Scope) -> None:
        self._target_bytes = len(scope.get("raw_path") or scope["path"]) + len(
            scope.get("query_string", b"")
        )
        self._pairs = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self._pairs)
        length = self.headers.get(b"content-length", b"")
        # A server has refused what is no number; ours stay small enough to be one.
        self.length = int(length) if length.isdigit() and len(length) < 16 else None  # noqa: PLR2004
        self.has_body = bool(self.length) or b"transfer-encoding" in self.headers

    @property
    def request_id(self) -> str:
        return fit_request_id(self.headers.get(b"x-request-id", b"").decode("latin-1"))

    def check(self) -> None:
        """Raises `UriTooLong`, `HeadersTooLarge` or `UnsupportedMediaType`."""
        if self._target_bytes > MAX_TARGET_BYTES:
            raise UriTooLong(f"path and query are longer than {MAX_TARGET_BYTES} bytes")
        size = sum(len(name) + len(value) for name, value in self._pairs)
        if size > MAX_HEADER_BYTES or len(self._pairs) > MAX_HEADERS:
            raise HeadersTooLarge(
                f"there are more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them"
            )
        if len(self.headers.get(b"content-type", b"")) > MAX_CONTENT_TYPE_BYTES:
            raise UnsupportedMediaType("the Content-Type is too long to be one")

    def check_json(self) -> None:
        """Raises `UnsupportedMediaType` for a body that says it is something else.

        Without a Content-Type it is taken for JSON, since no browser sends it so unasked.
        """
        if not self.has_body:
            return
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedMediaType("the body is compressed; send it as it is")
        kind, _, parameters = self.headers.get(b"content-type", b"").lower().partition(b";")
        kind = kind.strip()
        if kind and kind not in JSON_TYPES and not kind.endswith(b"+json"):
            raise UnsupportedMediaType("the body's Content-Type is not application/json")
        if b"charset" in parameters and b"utf-8" not in parameters and b"utf8" not in parameters:
            raise UnsupportedMediaType("JSON is UTF-8; the Content-Type says otherwise")


class Inflow:
    """A request's body, read within limits of size, of time and of what all may hold."""

    def __init__(self, head: Head, receive: Receive, gate: Gate) -> None:
        self._head = head
        self._receive = receive
        self._gate = gate
        self._is_complete = not head.has_body

    async def read(self, into: BytesIO, *, admitted: bool = False) -> None:
        """Raises `BodyTooLarge` as soon as it is, `BodyTooSlow`, `TooManyInFlight` where other
        large bodies take all the room, `ClientLeft` when cut short."""
        length = self._head.length
        if length is not None and length > self._gate.max_bytes:
            raise self._too_large()
        share = None
        if self._head.has_body and (length is None or length > SMALL_BODY_BYTES):
            share = await self._gate.enter(admitted=admitted)
        try:
            async with asyncio.timeout(self._gate.seconds):
                await self._read(into)
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive in {self._gate.seconds:g} s") from None
        finally:
            if share is not None:
                share.release()

    async def _read(self, into: BytesIO) -> None:
        size = 0
        while True:
            message = await self._next()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._gate.max_bytes:
                raise self._too_large()
            into.write(chunk)
            if self._is_complete:
                into.seek(0)
                return

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._gate.max_bytes} bytes")

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self._is_complete = not message.get("more_body", False)
        return message

    async def answer(self, response: HttpResponse, send: Send) -> None:
        """Answer, perhaps before the body is read to its end.

        A server reads on by itself. From a sender that may never end the connection is taken,
        but not at once: closing with unread data resets it, and the answer might be lost.
        """
        endless = self._head.length is None or self._head.length > self._gate.max_bytes
        lingers = not self._is_complete and endless
        if lingers:
            response["Connection"] = "close"
        await send_start(response, send)
        if lingers:
            await send({"type": "http.response.body", "body": response.content, "more_body": True})
            with contextlib.suppress(TimeoutError, ClientLeft):
                async with asyncio.timeout(LINGER_S):
                    while not self._is_complete:
                        await self._next()
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": response.content})


class Gate:
    """What the bodies of a process share."""

    def __init__(self, settings: Settings) -> None:
        self.max_bytes = settings.max_body_bytes
        self.seconds = settings.body_timeout
        # Apart, so that strangers at the admin's login take no room from who was let in.
        size = max(1, LARGE_BODIES_BYTES // self.max_bytes)
        self._callers, self._strangers = asyncio.Semaphore(size), asyncio.Semaphore(size)

    async def enter(self, *, admitted: bool) -> asyncio.Semaphore:
        """Room for one large body, to be released. Raises `TooManyInFlight`.

        A body whose length is not told counts as large: a server hands over what it has, which
        may be much. Room is taken whole, since readers that held parts could wait for each
        other.
        """
        shares = self._callers if admitted else self._strangers
        try:
            async with asyncio.timeout(self.seconds):
                await shares.acquire()
        except TimeoutError:
            raise TooManyInFlight("other large bodies are being read", retry_after=1) from None
        return shares


async def send_start(response: HttpResponse, send: Send) -> None:
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers.append((b"content-length", b"%d" % len(response.content)))
    headers.append((b"x-content-type-options", b"nosniff"))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
