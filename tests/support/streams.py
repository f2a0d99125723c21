"""Both ends of a stream: an LLM that writes when a test says so, and a client that reads so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from typing import Any

from tests.support.events import Event, parse
from tests.support.http import Answer, Wire
from tests.support.provider import Exchange, response

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_COMMENT = re.compile(rb"^:.*\n", re.MULTILINE)


class Author:
    """Behaves as Anthropic's API for one request, in steps of the test's."""

    def __init__(self) -> None:
        self.written = 0  # bytes
        self._asked: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        self._is_over = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        self._asked.set_result(exchange)
        await self._is_over.wait()

    async def begin(self) -> None:
        """Wait for the request, and send what comes before the first content."""
        exchange = await self._asked
        await exchange.send(_HEAD)
        message = {"model": "claude-sonnet-5-5", "usage": {"input_tokens": 10, "output_tokens": 1}}
        await self.send("message_start", message=message)
        await self.send("content_block_start", index=0, content_block={"type": "text", "text": ""})

    async def write(self, text: str) -> None:
        """Waits while the service does not read."""
        await self.send("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    async def send(self, kind: str, **members: Any) -> None:
        document = json.dumps({"type": kind, **members})
        event = f"event: {kind}\ndata: {document}\n\n".encode()
        self.written += len(event)
        await (await self._asked).send(b"%x\r\n%b\r\n" % (len(event), event))

    async def finish(self) -> None:
        await self.send("content_block_stop", index=0)
        await self.send(
            "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 20}
        )
        await self.send("message_stop")
        await self.close()

    async def close(self) -> None:
        """A clean end, which without a stop reason is none."""
        await (await self._asked).send(b"0\r\n\r\n")
        self._is_over.set()

    async def refuse(self, status: int, document: Any) -> None:
        exchange = await self._asked
        await exchange.send(response(status, json.dumps(document).encode()))
        self._is_over.set()


class Follower:
    """A client that reads a stream of events, one after the other."""

    def __init__(self, wire: Wire, answer: Answer) -> None:
        self._wire = wire
        self.status = answer.status
        self.headers = answer.headers
        self._pending = b""
        self.comments = 0

    @classmethod
    async def begin(
        cls, port: int, path: str = "/api/v1/generate/1", payload: Any = None, headers=()
    ) -> Follower:
        """Ask, and wait for the head of the answer. Without a payload the request is a GET."""
        method = "GET" if payload is None else "POST"
        body = b"" if payload is None else json.dumps(payload).encode()
        wire = await Wire.begin(port, method, path, body, headers)
        return cls(wire, await wire.read_head())

    @property
    def has_more(self) -> bool:
        """Whether anything has arrived that was not read."""
        return bool(self._pending or self._wire.reader._buffer)  # type: ignore[attr-defined]  # StreamReader has no other way to ask

    async def event(self) -> Event | None:
        """The next event; None at a clean end. Raises `ConnectionError` at any other."""
        while b"\n\n" not in self._pending:
            chunk = await self._chunk()
            if not chunk:
                assert not self._pending, f"an event without an end: {self._pending!r}"
                return None
            self.comments += len(_COMMENT.findall(chunk))
            self._pending += _COMMENT.sub(b"", chunk)
        block, _, self._pending = self._pending.partition(b"\n\n")
        return parse(block + b"\n\n")[0]

    async def _chunk(self) -> bytes:
        try:
            size = int(await self._wire.reader.readuntil(b"\r\n"), 16)
            return (await self._wire.reader.readexactly(size + 2))[:-2]
        except asyncio.IncompleteReadError:
            raise ConnectionResetError(
                "the connection was torn in the middle of a stream"
            ) from None

    async def rest(self) -> list[Event]:
        """All that comes, up to a clean end; then the connection ends."""
        events = []
        try:
            while event := await self.event():
                events.append(event)
        finally:
            await self.leave()
        return events

    async def leave(self) -> None:
        await self._wire.leave()


@contextlib.asynccontextmanager
async def lazy_client(port: int, payload: Any):
    """A client that asks for a stream, and reads none of it. Its kernel buffers little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    body = json.dumps(payload).encode()
    head = (
        "POST /api/v1/generate/1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(sock, head.encode() + body)
    try:
        yield sock
    finally:
        sock.close()


def text_of(events: list[Event]) -> str:
    return "".join(event.data.get("text", "") for event in events if event.kind == "delta")


def kinds_of(events: list[Event]) -> list[str]:
    return [event.kind for event in events if event.kind != "delta"]
