"""Bytes on a socket, as no well-behaved client would send them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

GENERATE = "/api/v1/generate/1"


def head(*lines: str, path: str = GENERATE, method: str = "POST") -> bytes:
    first = (f"{method} {path} HTTP/1.1", "Host: localhost")
    return "\r\n".join((*first, *lines, "", "")).encode("latin1", "surrogateescape")


@dataclass
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Wire:
    """One connection."""

    def __init__(self, reader, writer) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, port: int):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        wire = cls(reader, writer)
        try:
            yield wire
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, seconds: float = 10) -> Reply:
        """The next response. A connection that was closed or reset without one has status 0."""
        async with asyncio.timeout(seconds):
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return Reply(0)
            first, *lines = raw.decode("latin1").rstrip().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
            }
            try:
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            except (asyncio.IncompleteReadError, ConnectionError):
                body = b""
            return Reply(int(first.split()[1]), headers, body)

    async def is_closed(self, seconds: float = 10) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def send_for_ever(self, chunk: bytes = b"x" * 16_384, pause: float = 0) -> None:
        """A chunked body without an end, until the other side has enough."""
        framed = b"%x\r\n%s\r\n" % (len(chunk), chunk)
        with contextlib.suppress(ConnectionError):
            while True:
                await self.send(framed)
                await asyncio.sleep(pause)


async def exchange(port: int, data: bytes, seconds: float = 10) -> Reply:
    async with Wire.to(port) as wire:
        with contextlib.suppress(ConnectionError):
            await wire.send(data)
        return await wire.reply(seconds)
