"""A client that is nothing but a socket: for thousands at once, rude exits and malformed bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from tests.support.waiting import HANG_S

GENERATE = "/api/v1/generate/1"


def head(*lines: str, path: str = GENERATE, method: str = "POST") -> bytes:
    first = (f"{method} {path} HTTP/1.1", "Host: localhost")
    return "\r\n".join((*first, *lines, "", "")).encode("latin1", "surrogateescape")


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, port: int):
        wire = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            yield wire
        finally:
            wire.writer.close()
            with contextlib.suppress(ConnectionError):
                await wire.writer.wait_closed()

    @classmethod
    async def begin(cls, port: int, method: str, path: str, body: bytes = b"", headers=()) -> Wire:
        """Send a request on a connection of its own."""
        wire = cls(*await asyncio.open_connection("127.0.0.1", port))
        lines = ["Connection: close", *(f"{name}: {value}" for name, value in headers)]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        await wire.send(head(*lines, path=path, method=method) + body)
        return wire

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_without_end(self, chunk: bytes = b"x" * 16_384, pause: float = 0) -> None:
        """A chunked body without an end, until the other side has enough."""
        framed = b"%x\r\n%s\r\n" % (len(chunk), chunk)
        with contextlib.suppress(ConnectionError):
            while True:
                await self.send(framed)
                await asyncio.sleep(pause)

    async def answer(self) -> Answer:
        """The whole response; then the connection ends.

        Raises `ConnectionError` if the connection ends before the response does.
        """
        try:
            answer = await self.read_head()
            rest = await self.reader.read()
        finally:
            await self._end()
        if len(rest) < int(answer.headers.get("content-length", 0)):
            raise ConnectionResetError("the connection was closed in the middle of an answer")
        answer.body = rest
        return answer

    async def reply(self, seconds: float = HANG_S) -> Answer:
        """The next response. A connection that was closed or reset without one has status 0."""
        async with asyncio.timeout(seconds):
            try:
                answer = await self.read_head()
            except ConnectionError:
                return Answer(0)
            length = int(answer.headers.get("content-length", 0))
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                answer.body = await self.reader.readexactly(length)
            return answer

    async def read_head(self) -> Answer:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the connection was closed without an answer") from None
        first, *lines = raw.decode("latin1").rstrip().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        return Answer(int(first.split()[1]), headers)

    async def is_closed(self) -> bool:
        try:
            async with asyncio.timeout(HANG_S):
                return not await self.reader.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def leave(self) -> None:
        """Reset the connection, as a client that is killed."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._end()

    async def _end(self) -> None:
        """Leave nothing behind for a loop that may be closed next."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def exchange(port: int, data: bytes) -> Answer:
    """Send bytes as they are; the response has status 0 if there is none."""
    async with Wire.to(port) as wire:
        with contextlib.suppress(ConnectionError):
            await wire.send(data)
        return await wire.reply()


async def request(port: int, method: str, path: str, payload=None, headers=()) -> Answer:
    body = b"" if payload is None else json.dumps(payload).encode()
    wire = await Wire.begin(port, method, path, body, headers)
    return await wire.answer()


async def generate(port: int, user_id: int = 1, payload=None, headers=()) -> Answer:
    return await request(port, "POST", f"/api/v1/generate/{user_id}", payload, headers)
