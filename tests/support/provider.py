"""A provider at the wire: a real server on loopback that answers as its user tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import Any

from tests.support.waiting import until


class Ending(Enum):
    """How a stream ends, if not cleanly."""

    TORN = auto()  # the connection is closed in the middle of the body
    RESET = auto()
    SILENCE = auto()  # nothing more comes


Behaviour = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request that arrived, and the means to answer it."""

    def __init__(self, head: bytes, body: bytes, connection: _Connection) -> None:
        self.head = head
        self.body = body
        self._connection = connection

    @cached_property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @cached_property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def write(self, data: bytes) -> None:
        self._connection.transport.write(data)

    async def send(self, data: bytes) -> None:
        """Waits while the client reads more slowly than this is called."""
        self.write(data)
        await self._connection.writable.wait()

    async def reply(self, status: int, body: bytes, **headers: str) -> None:
        await self.send(response(status, body, **headers))

    @property
    def is_closed(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        self._connection.transport.close()

    def reset(self) -> None:
        sock = self._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()


@dataclass(repr=False)
class Provider:
    """`behave` answers every request; `script` answers the first ones, one each.

    While `release` is clear, requests wait before they are answered. A client that leaves ends
    its exchange at once.
    """

    behave: Behaviour
    script: list[Behaviour] = field(default_factory=list)
    keep: bool = True  # what arrived; a measurement of an hour should not
    requests: list[Exchange] = field(default_factory=list)
    calls: int = 0
    accepted: int = 0
    waiting: int = 0
    peak_waiting: int = 0
    hung_up: int = 0  # calls whose client closed the connection before the answer
    url: str = ""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    connections: set[_Connection] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.release.set()

    @contextlib.asynccontextmanager
    async def serve(self, **options: Any):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=8192, **options
        )
        scheme = "https" if options.get("ssl") else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for connection in list(self.connections):
                connection.transport.abort()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the server's own state; a real event, so polling it is not a guess."""
        await until(condition, lambda: f"{what} at {self!r}")

    @property
    def connected(self) -> int:
        return len(self.connections)

    def __repr__(self) -> str:
        return (
            f"<Provider calls={self.calls} accepted={self.accepted} connected={self.connected}"
            f" waiting={self.waiting} hung_up={self.hung_up}>"
        )

    async def answer(self, exchange: Exchange) -> None:
        if self.keep:
            self.requests.append(exchange)
        self.calls += 1
        behave = self.script.pop(0) if self.script else self.behave
        self.waiting += 1
        self.peak_waiting = max(self.peak_waiting, self.waiting)
        try:
            await self.release.wait()
            await behave(exchange)
        finally:
            self.waiting -= 1


class _Connection(asyncio.Protocol):
    """One request at a time, as HTTP/1.1 clients without pipelining send them."""

    transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # create_server's are duplex
        self._provider.accepted += 1
        self._provider.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._provider.connections.discard(self)
        if self._task is not None:
            self._provider.hung_up += 1
            self._task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._begin()

    def _begin(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        stop = end + 4 + length
        if len(self._buffer) < stop:
            return
        exchange = Exchange(head, self._buffer[end + 4 : stop], self)
        self._buffer = self._buffer[stop:]
        task = asyncio.get_running_loop().create_task(self._provider.answer(exchange))
        self._task = task
        self._provider.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._provider.tasks.discard(task)
        self._task = None
        if not self.transport.is_closing() and not task.cancelled():
            if task.exception() is not None:
                self.transport.abort()
                task.result()  # raises: asyncio logs a behaviour's own fault
            if self._buffer:
                self._begin()


def response(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


# --- behaviours -----------------------------------------------------------------------------


def says(status: int, body: object, **headers: str) -> Behaviour:
    """Answers with that status and JSON, or the bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    whole = response(status, content, **headers)

    async def behave(exchange: Exchange) -> None:
        await exchange.send(whole)

    return behave


def sends(data: bytes) -> Behaviour:
    """Sends these bytes, whatever they are, and closes."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.close()

    return behave


async def hangs(_: Exchange) -> None:
    """Until the client leaves."""
    await asyncio.Event().wait()


async def drips(exchange: Exchange) -> None:
    """A valid beginning, then a byte ten times a second until the client leaves."""
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await exchange.send(b"1\r\n \r\n")
        await asyncio.sleep(0.1)


def streams(*pieces: bytes | asyncio.Event | Ending, **headers: str) -> Behaviour:
    """Sends a head of status 200 and the pieces, each in a chunk of its own. An event is waited
    for. It ends as the last piece says; cleanly without one."""
    lines = ["HTTP/1.1 200 OK", "transfer-encoding: chunked"]
    named = {"content_type": "text/event-stream", **headers}
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    head = "\r\n".join([*lines, "", ""]).encode()

    async def behave(exchange: Exchange) -> None:
        await exchange.send(head)
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, bytes):
                await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            elif piece is Ending.TORN:
                exchange.close()
                return
            elif piece is Ending.RESET:
                exchange.reset()
                return
            else:
                await hangs(exchange)
        await exchange.send(b"0\r\n\r\n")

    return behave


async def resets(exchange: Exchange) -> None:
    """Closes so that the client sees a reset."""
    exchange.reset()


def waits_for(event: asyncio.Event, then: Behaviour) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await event.wait()
        await then(exchange)

    return behave
