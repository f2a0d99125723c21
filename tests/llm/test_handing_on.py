"""A body is handed on in the step that has read it, and no faster than it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os

import httpx
import pytest

from generation.llm.transport import Transport
from generation.llm.transport.body import PulledBody
from tests.support.transport import CHUNKED, ask, writes
from tests.support.waiting import HANG_S, until


async def test_chunks_that_have_come_together_are_handed_on_together(peer, transport):
    go = asyncio.Event()
    peer.behave = writes(CHUNKED, go, b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
    response = await ask(transport, peer.url)
    taken = []

    def take(piece):
        taken.append(piece)
        return True

    pouring = asyncio.create_task(response.stream.pour(take))
    await asyncio.sleep(0)
    go.set()
    assert await pouring is True, "the body has ended"
    assert taken == [b"onetwothree"]


async def test_a_body_can_be_taken_in_parts_and_nothing_is_lost(peer, transport):
    go = [asyncio.Event() for _ in range(2)]
    peer.behave = writes(
        CHUNKED + b"1\r\na\r\n", go[0], b"1\r\nb\r\n", go[1], b"1\r\nc\r\n0\r\n\r\n"
    )
    response = await ask(transport, peer.url)
    taken = []
    for event in (None, *go):
        if event:
            event.set()
        assert await response.stream.pour(taken.append) is False, "append returns nothing"
    assert taken == [b"a", b"b", b"c"]
    assert await response.stream.pour(taken.append) is True
    assert peer.connected == 1, "a body that was read to its end leaves a connection"


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_body_that_is_closed_before_its_end_never_looks_whole(peer, transport, is_read):
    """Neither to one who is reading it, nor to one who reads on."""
    peer.behave = writes(CHUNKED + b"1\r\na\r\n", asyncio.Event())
    response = await ask(transport, peer.url)
    assert await anext(response.stream) == b"a"
    if is_read:
        reading = asyncio.create_task(anext(response.stream))
        await asyncio.sleep(0)
    await response.aclose()
    with pytest.raises(httpx.ReadError, match="closed before its end"):
        await (reading if is_read else anext(response.stream))


@pytest.mark.parametrize("has_begun", [False, True])
async def test_what_nobody_takes_is_not_read(peer, transport, has_begun):
    """Neither before the first piece is asked for, nor after one."""
    sent = 0
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    exchanges = []

    async def goes_on(exchange):
        nonlocal sent
        exchanges.append(exchange)
        await exchange.send(CHUNKED)
        for _ in range(1600):  # 100 MB
            await exchange.send(piece)
            sent += len(piece)
        await exchange.send(b"0\r\n\r\n")

    peer.behave = goes_on
    response = await ask(transport, peer.url)
    read = 0

    def count(piece):
        nonlocal read
        read += len(piece)
        return has_begun is None

    if has_begun:
        await response.stream.pour(count)
    await until(lambda: not exchanges[0]._connection.writable.is_set(), lambda: f"sent {sent}")
    assert sent < 30_000_000, "it was read on"
    has_begun = None
    assert await response.stream.pour(count) is True
    assert read == 1600 * 65_536


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_flood_leaves_all_others_their_turns(loop):
    """uvloop reads a socket that stays full 32 times in a turn, and a turn would take seconds."""
    taken = [0]  # bytes in each turn

    def note_turn():
        taken.append(0)
        asyncio.get_running_loop().call_soon(note_turn)

    async def drink():
        flooding = asyncio.get_running_loop().create_future()
        left = asyncio.Event()

        async def floods(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            flooding.set_result(writer.get_extra_info("socket").fileno())
            await left.wait()
            writer.transport.abort()

        listener = await asyncio.start_server(floods, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with Transport(connect_timeout=HANG_S) as transport:
            response = await ask(transport, f"http://127.0.0.1:{port}")

            def take(piece):
                taken[-1] += len(piece)
                with contextlib.suppress(BlockingIOError):
                    while os.write(flooding.result(), b"x" * 65_536):
                        pass
                return sum(taken) < 50_000_000

            take(b"")
            note_turn()
            await response.stream.pour(take)
            await response.stream.aclose()
            left.set()
            listener.close()

    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(drink())
    assert max(taken) <= 262_144, "more than one read in a turn"


async def test_what_the_taker_raises_comes_out_where_it_waits(peer, transport):
    go = asyncio.Event()
    peer.behave = writes(CHUNKED, go, b"1\r\na\r\n")
    response = await ask(transport, peer.url)

    def take(_):
        raise LookupError("mine")

    pouring = asyncio.create_task(response.stream.pour(take))
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(LookupError, match="mine"):
        await pouring
    await response.stream.aclose()
    await peer.until(lambda: peer.connected == 0, "closing")


async def test_pieces_are_taken_in_the_context_of_the_one_who_waits(peer, transport):
    """A connection outlives the request that it was made for, and so does its own context."""
    asker = contextvars.ContextVar("asker", default="")

    async def call(name):
        asker.set(name)
        go = asyncio.Event()
        peer.behave = writes(CHUNKED, go, b"1\r\na\r\n0\r\n\r\n")
        response = await ask(transport, peer.url)
        seen = []
        asyncio.get_running_loop().call_soon(go.set)
        await response.stream.pour(lambda _: seen.append(asker.get()) or True)
        return seen

    assert await asyncio.create_task(call("first")) == ["first"]
    assert await asyncio.create_task(call("second")) == ["second"]
    assert peer.accepted == 1, "the connection was not used again, so nothing was tried"


async def test_a_body_of_another_transport_can_be_taken_in_parts():
    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self):
            for piece in (b"a", b"b", b"c"):
                yield piece

    taken = []
    body = PulledBody(Pieces())
    assert await body.pour(taken.append) is False
    assert [piece async for piece in body] == [b"b", b"c"]
    assert await body.pour(taken.append) is True
    assert taken == [b"a"]
