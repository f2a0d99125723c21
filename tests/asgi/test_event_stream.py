"""A stream of events: sent while it is made, closed once, torn where it can't go on."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from generation.asgi import event_stream
from generation.asgi.event_stream import (
    KEEP_ALIVE,
    KEEP_ALIVE_S,
    SEND_BYTES,
    ConnectionTorn,
    EventSource,
    EventStream,
    send_events,
)
from generation.asgi.uvicorn_limits import ABORT
from generation.telemetry.metrics import CLIENT_LEFT, SUCCEEDED
from tests.support import virtual_time

SEND_S = 30.0


class Script(EventSource):
    """Gives what the test lists: bytes, a wait in seconds, or an error."""

    def __init__(self, *steps: Any) -> None:
        self.steps = deque(steps)
        self.closed = 0
        self._due = 0.0  # the end of the wait that has begun

    async def read(self) -> bytes:
        while self.steps:
            if isinstance(self.steps[0], float):
                await self._wait(self.steps[0])
            step = self.steps.popleft()  # not before its wait is over, which may be cancelled
            if isinstance(step, bytes):
                return step
            if isinstance(step, Exception):
                raise step
        return b""

    async def _wait(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self._due = self._due or now + seconds
        await asyncio.sleep(self._due - now)
        self._due = 0.0

    def close(self) -> None:
        self.closed += 1


class Client:
    """The server's side of a connection, with a client that takes `takes` messages at most."""

    def __init__(self, takes: int = 10_000, leaves_after: float | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.aborted = 0
        self._takes = takes
        self._leaves_after = leaves_after
        self._gone = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def is_whole(self) -> bool:
        return self.sent[-1].get("more_body") is False

    async def receive(self) -> dict[str, Any]:
        if self._leaves_after is None:
            await self._gone.wait()
        else:
            await asyncio.sleep(self._leaves_after)
        return {"type": "http.disconnect"}

    async def send(self, message) -> None:
        if len(self.sent) >= self._takes:
            await asyncio.Event().wait()
        self.sent.append(message)

    def abort(self) -> None:
        self.aborted += 1
        self._gone.set()

    async def get(self, source: Script, scope: dict[str, Any] | None = None) -> str:
        scope = {ABORT: self.abort} if scope is None else scope
        stream = EventStream(source, {"X-More": "yes"})
        return await send_events(stream, "trace-7", SEND_S, scope, self.receive, self.send)


async def test_what_is_read_at_once_is_sent_at_once_and_the_end_is_the_sources():
    client, source = Client(), Script(b"a\n\nb\n\n", b"c\n\n")
    assert await client.get(source) == SUCCEEDED
    assert [message["body"] for message in client.sent[1:]] == [b"a\n\nb\n\n", b"c\n\n", b""]
    assert client.is_whole
    assert source.closed == 1


async def test_the_end_leaves_with_the_last_events_of_a_source_that_knows_them():
    class Knowing(Script):
        async def read(self) -> bytes:
            events = await super().read()
            self.is_over = not self.steps
            return events

    client, source = Client(), Knowing(b"a\n\n", b"b" * (SEND_BYTES + 1))
    assert await client.get(source) == SUCCEEDED
    assert [len(message["body"]) for message in client.sent[1:]] == [3, SEND_BYTES, 1]
    assert client.is_whole
    assert source.is_sent


async def test_the_head_says_that_nobody_on_the_way_may_hold_events_back():
    client = Client()
    await client.get(Script(b"a"))
    headers = dict(client.sent[0]["headers"])
    assert client.sent[0]["status"] == 200
    assert headers == {
        b"Content-Type": b"text/event-stream; charset=utf-8",
        b"Cache-Control": b"no-cache, no-transform",
        b"X-Accel-Buffering": b"no",
        b"X-More": b"yes",
        b"x-content-type-options": b"nosniff",
        b"x-request-id": b"trace-7",
    }


async def test_a_client_that_leaves_after_the_last_byte_has_all_of_the_answer():
    """uvicorn reports a disconnect once the response is complete."""

    class Leaves(Client):
        async def send(self, message) -> None:
            await super().send(message)
            if self.is_whole:
                self._gone.set()

    source = Script(b"done")
    assert await Leaves().get(source) == SUCCEEDED
    assert source.closed == 1


async def test_the_source_says_what_the_request_counts_as():
    source = Script(b"error")
    source.outcome = "stream-broken"
    assert await Client().get(source) == "stream-broken"


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        ((b"a", 3.5 * KEEP_ALIVE_S, b"b"), b"a" + 3 * KEEP_ALIVE + b"b"),
        ((b"a", KEEP_ALIVE_S - 1, b"b", KEEP_ALIVE_S - 1, b"c"), b"abc"),
    ],
    ids=["silent", "slow"],
)
def test_silence_is_filled_with_comments_and_loses_no_event(steps, body):
    async def main():
        client = Client()
        await client.get(Script(*steps))
        return client.body

    assert virtual_time.run(main()) == body


async def test_much_at_once_is_sent_in_parts_of_what_a_server_buffers():
    client = Client()
    await client.get(Script(b"x" * (2 * SEND_BYTES + 1)))
    assert [len(message["body"]) for message in client.sent[1:]] == [SEND_BYTES, SEND_BYTES, 1, 0]


@pytest.mark.parametrize("takes", [1, 2, 10_000], ids=["a wait to send", "another", "a read"])
def test_a_client_that_leaves_ends_the_wait_for_it(takes):
    async def main():
        client, source = Client(takes, leaves_after=5.0), Script(b"a", b"b", 1000.0)
        outcome = await client.get(source)
        return outcome, client.is_whole, source.closed, asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == (CLIENT_LEFT, False, 1, 5.0)


@pytest.mark.parametrize("takes", [0, 1, 2], ids=["no head", "the head", "an event"])
def test_a_client_that_does_not_read_has_left_after_a_while(takes):
    async def main():
        client, source = Client(takes), Script(b"a", b"b", b"c")
        outcome = await client.get(source)
        waited = asyncio.get_running_loop().time()
        return outcome, client.aborted, source.closed, waited == pytest.approx(SEND_S, abs=0.1)

    assert virtual_time.run(main()) == (CLIENT_LEFT, 1, 1, True)


def test_a_client_that_reads_no_comment_has_left_too():
    async def main():
        client, source = Client(takes=2), Script(b"a", 1000.0)
        outcome = await client.get(source)
        return outcome, client.aborted, source.closed

    assert virtual_time.run(main()) == (CLIENT_LEFT, 1, 1)


async def test_a_bug_tears_the_connection_and_is_logged(caplog):
    client, source = Client(), Script(b"a", ValueError("a bug"))
    with caplog.at_level(logging.ERROR):
        assert await client.get(source) == "internal-error"
    assert not client.is_whole, "clients take a clean end for the end of the answer"
    assert (client.aborted, source.closed) == (1, 1)
    assert "a bug broke off a stream" in caplog.text


async def test_another_server_tears_the_connection_when_the_application_fails():
    source = Script(b"a", ValueError("a bug"))
    with pytest.raises(ConnectionTorn):
        await Client().get(source, scope={})
    assert source.closed == 1


@pytest.mark.parametrize("steps", range(8))
async def test_a_server_that_stops_closes_the_source_in_each_step(steps):
    client, source = Client(), Script(b"a", 1000.0)
    serving = asyncio.ensure_future(client.get(source))
    await asyncio.sleep(0)  # a task that has not begun has no source to close
    for _ in range(steps):
        await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert source.closed == 1


async def test_a_thousand_events_need_no_thousand_timers(monkeypatch):
    loop = asyncio.get_running_loop()
    armed = []
    call_at = loop.call_at
    monkeypatch.setattr(
        loop, "call_at", lambda *args, **kw: armed.append(1) or call_at(*args, **kw)
    )
    await Client().get(Script(*[b"x"] * 1000))
    assert len(armed) < 10


async def test_another_handler_can_send_it_as_well():
    source = Script(b"a", b"b")
    stream = EventStream(source)
    assert [part async for part in stream] == [b"a", b"b"]
    await sync_to_async(stream.close)()  # as Django does
    assert source.closed == 1
    assert stream["Content-Type"] == event_stream.CONTENT_TYPE
