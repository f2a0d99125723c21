"""A client that is nothing but a socket: fit for thousands at once, and for leaving rudely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class Exchange:
    """One request on a connection of its own."""

    def __init__(self, reader, writer) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, port: int, method: str, path: str, body: bytes = b"", headers=()):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return cls(reader, writer)

    async def answer(self) -> Answer:
        """Raises `ConnectionError`, also where the connection ends without one."""
        try:
            raw = await self._reader.read()
        finally:
            await self._end()
        if not raw:
            raise ConnectionResetError("the connection was closed without an answer")
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        if len(body) < int(headers.get("content-length", 0)):
            raise ConnectionResetError("the connection was closed in the middle of an answer")
        return Answer(int(first.split()[1]), headers, body)

    async def leave(self) -> None:
        """Reset the connection, as a client that is killed."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._end()

    async def _end(self) -> None:
        """Nothing is left for a loop that may be closed next."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def request(port: int, method: str, path: str, payload=None, headers=()) -> Answer:
    body = b"" if payload is None else json.dumps(payload).encode()
    exchange = await Exchange.begin(port, method, path, body, headers)
    return await exchange.answer()


async def generate(port: int, user_id: int = 1, payload=None, headers=()) -> Answer:
    return await request(port, "POST", f"/api/v1/generate/{user_id}", payload, headers)
