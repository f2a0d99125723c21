"""A provider at the wire: a real server on loopback that answers as each test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request that arrived, and the means to answer it."""

    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status: int, body: bytes, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def until_left(self) -> None:
        """Returns when the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read(1)


@dataclass
class ProviderServer:
    """`behave` answers every request; `script` answers the first ones, one each."""

    behave: Behaviour
    script: list[Behaviour] = field(default_factory=list)
    requests: list[Exchange] = field(default_factory=list)
    accepted: int = 0
    connected: int = 0
    waiting: int = 0
    abandoned: int = 0  # requests whose client left before the answer
    url: str = ""

    @contextlib.asynccontextmanager
    async def serve(self, **options: Any):
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0, backlog=8192, **options)
        scheme = "https" if options.get("ssl") else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
        """Wait for the server's own state; a real event, so polling it is not a guess."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{what} did not happen within {seconds} s: {self!r}") from None

    def __repr__(self) -> str:
        return (
            f"<ProviderServer requests={len(self.requests)} accepted={self.accepted} "
            f"connected={self.connected} waiting={self.waiting} abandoned={self.abandoned}>"
        )

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        self.connected += 1
        try:
            while not writer.is_closing():
                await self._answer_one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self.connected -= 1
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _answer_one(self, reader, writer) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        exchange = Exchange(first.split()[1], headers, body, reader, writer)
        self.requests.append(exchange)
        behave = self.script.pop(0) if self.script else self.behave
        self.waiting += 1
        try:
            await behave(exchange)
        finally:
            self.waiting -= 1


# --- behaviours -----------------------------------------------------------------------------


def says(status: int, body: object, **headers: str) -> Behaviour:
    """Answers with that status and JSON, or the bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(exchange: Exchange) -> None:
        await exchange.reply(status, content, **headers)

    return behave


def sends(data: bytes) -> Behaviour:
    """Sends these bytes, whatever they are, and closes."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.writer.close()

    return behave


async def hangs(exchange: Exchange) -> None:
    await exchange.until_left()


async def drips(exchange: Exchange) -> None:
    """A valid beginning, then a byte ten times a second for ever."""
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await exchange.send(b"1\r\n \r\n")
        await asyncio.sleep(0.1)


async def resets(exchange: Exchange) -> None:
    """Closes so that the client sees a reset."""
    sock = exchange.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.writer.transport.abort()


def closes_after(data: bytes = b"") -> Behaviour:
    return sends(data)


def waits_for(event: asyncio.Event, then: Behaviour) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await event.wait()
        await then(exchange)

    return behave
