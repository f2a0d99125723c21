"""Events leave in the step that brings them, unless a middleware or a slow client is in between."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from generation.asgi import uvicorn_limits
from generation.asgi.event_stream import EventSource, EventStream, send_events
from generation.asgi.uvicorn_writing import find_cycle
from tests.support import waiting

SEND_S = 30.0
ASKED = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Waiting(EventSource):
    """Has one event, and then waits for what the test pushes or gives."""

    def __init__(self) -> None:
        self.given = asyncio.Queue[bytes]()
        self.given.put_nowait(b"first")
        self.sink: Any = None

    async def read(self) -> bytes:
        return await self.given.get()

    def push_to(self, sink) -> None:
        self.sink = sink

    def close(self) -> None:
        self.sink = None


class Connection(asyncio.Transport):
    """What uvicorn writes to, without a client behind it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""

    def write(self, data) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Served:
    """uvicorn, which has begun to send a stream."""

    def __init__(self, wrap=lambda send: send) -> None:
        async def application(scope, receive, send) -> None:
            await send_events(
                EventStream(self.source), "trace-7", SEND_S, scope, receive, wrap(send)
            )

        uvicorn_limits.apply()
        config = uvicorn.Config(application, lifespan="off", log_config=None)
        config.load()
        self.source = Waiting()
        self.protocol = HttpToolsProtocol(config, ServerState(), {})
        self.connection = Connection()
        self.protocol.connection_made(self.connection)
        self.protocol.data_received(ASKED)

    async def until(self, words: bytes) -> None:
        await waiting.until(lambda: words in self.connection.written, f"{words!r} is sent")

    async def ended(self) -> None:
        self.source.given.put_nowait(b"")
        await self.until(b"0\r\n\r\n")
        self.protocol.connection_lost(None)


async def test_an_event_is_written_in_the_step_that_brings_it():
    served = Served()
    await served.until(b"first")
    before = served.connection.written
    assert served.source.sink.is_ready
    served.source.sink.write(b"second")
    served.source.sink.write(b"")  # what the dialect has no event for
    assert served.connection.written == before + b"6\r\nsecond\r\n"
    served.source.given.put_nowait(b"third")
    await served.until(b"5\r\nthird\r\n")
    await served.ended()


async def test_nothing_is_written_past_a_client_that_lags_or_has_left():
    served = Served()
    await served.until(b"first")
    sink = served.source.sink
    served.protocol.pause_writing()
    assert not sink.is_ready
    served.protocol.resume_writing()
    assert sink.is_ready
    served.protocol.connection_lost(None)
    assert not sink.is_ready


async def test_a_middleware_that_wraps_send_sees_everything():
    seen = []

    def wrap(send):
        async def sees(message) -> None:
            seen.append(message)
            await send(message)

        return sees

    served = Served(wrap)
    await served.until(b"first")
    assert served.source.sink is None
    await served.ended()
    assert [message.get("body") for message in seen] == [None, b"first", b""]


def test_a_uvicorn_that_is_different_inside_is_sent_to_like_any_server():
    class Cycle:
        async def send(self, message) -> None: ...

    assert find_cycle(Cycle().send) is None
    Cycle.__module__ = HttpToolsProtocol.__module__
    assert find_cycle(Cycle().send) is None
