"""Where a reply begins and ends, what of it is bounded, and what becomes of its connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import httpx
import pytest

from generation.telemetry import metrics
from tests.support.provider import says, sends
from tests.support.transport import CHUNKED, OK, ask, post, serving, tls_of, writes
from tests.support.waiting import HANG_S, until

# --- where a reply begins and ends -----------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Go on\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 The same\r\ncontent-length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
        (CHUNKED + b"2;x=y\r\nok\r\n0\r\nx-trailer: z\r\n\r\n", 200, b"ok"),
    ],
    ids=["interim replies", "204", "304", "empty", "extensions and trailers"],
)
async def test_a_connection_is_used_again_after_a_reply_that_says_its_end(
    peer, transport, sent, status, body
):
    more = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" if b" 103 " in sent else b""
    peer.script = [writes(sent + more)]
    response, content = await post(transport, peer.url)
    assert (response.status_code, content) == (status, body)
    assert not {"link", "x-trailer"} & response.headers.keys()
    await post(transport, peer.url)
    assert peer.accepted == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
    ],
    ids=["close", "HTTP/1.0", "a second reply", "more than was promised"],
)
async def test_a_connection_is_not_used_again_where_that_is_not_safe(peer, transport, sent):
    peer.script = [writes(sent)]
    assert (await post(transport, peer.url))[1] == b"ok"
    await peer.until(lambda: peer.connected == 0, "closing")
    assert (await post(transport, peer.url))[1] == b"ok"


async def test_a_body_without_a_length_lasts_until_the_connection_is_closed(peer, transport):
    peer.behave = sends(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    assert (await post(transport, peer.url))[1] == b"all of it"


@pytest.mark.parametrize("is_cut", [False, True])
async def test_under_tls_the_end_of_a_body_without_a_length_has_to_be_said(
    authority, transport, is_cut
):
    """Or anybody on the way could cut an answer off."""

    async def behave(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        transport = exchange._connection.transport
        if is_cut:
            transport.get_extra_info("socket").shutdown(1)
        else:
            transport.close()

    async with serving(authority) as server:
        server.behave = behave
        if is_cut:
            with pytest.raises(httpx.RemoteProtocolError):
                await post(transport, server.url)
        else:
            assert (await post(transport, server.url))[1] == b"all of it"


async def test_under_tls_a_reply_may_end_with_its_connection_before_it_is_read(
    authority, transport
):
    """asyncio's TLS hands it on while it shuts down, and trips over a connection closed in that."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    is_sent = asyncio.Event()

    async def ends_early(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n")
        await is_sent.wait()
        await exchange.send(b"ok")
        exchange._connection.transport.get_extra_info("socket").shutdown(1)

    async with serving(authority) as server:
        server.behave = ends_early
        response = await ask(transport, server.url)
        is_sent.set()
        for _ in range(20):  # turns of the loop, in which it comes
            await asyncio.sleep(0)
        assert [chunk async for chunk in response.stream] == [b"ok"]
        for _ in range(20):
            await asyncio.sleep(0)
    assert complaints == []


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_refusal_before_the_end_of_the_request_leaves_no_connection(
    authority, transport, is_tls
):
    left = asyncio.Event()

    async def refuses_early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 0\r\n\r\n")
        await left.wait()
        writer.transport.abort()

    tls = tls_of(authority) if is_tls else None
    listener = await asyncio.start_server(refuses_early, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if is_tls else "http"
    url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    response, _ = await post(transport, url, content=b"x" * 30_000_000)
    assert response.status_code == 413
    [origin] = transport._origins.values()
    assert origin.take() is None, "the rest of the request is in its way"
    left.set()
    listener.close()


async def test_too_many_headers_are_named(peer, transport):
    peer.behave = sends(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"\r\n")
    with pytest.raises(httpx.RemoteProtocolError, match="too many headers"):
        await post(transport, peer.url)


# --- bounds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 101),
        (b"", b"HTTP/1.1 100 Go on\r\n\r\n"),
        (CHUNKED + b"1;", b"x" * 1000),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"x: y\r\n" * 100),
    ],
    ids=["a header", "headers", "interim replies", "an extension", "trailers"],
)
async def test_what_frames_a_body_is_bounded(peer, transport, head, more):
    async def never_ends(exchange):
        await exchange.send(head)
        while not exchange.is_closed:
            await exchange.send(more)
            await asyncio.sleep(0)

    peer.behave = never_ends
    async with asyncio.timeout(HANG_S):
        with pytest.raises(httpx.RemoteProtocolError):
            await post(transport, peer.url)
    await peer.until(lambda: peer.connected == 0, "closing")


@pytest.mark.parametrize("value", ["a\r\nx-other: b", "a\nb", "a\0b"])
async def test_a_header_that_would_be_two_is_not_sent(peer, transport, value):
    with pytest.raises(httpx.LocalProtocolError) as caught:
        await ask(transport, peer.url, **{"x-key": value})
    assert value not in str(caught.value)
    await post(transport, peer.url)
    assert len(peer.requests) == 1


# --- idle connections -----------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [sends(b""), writes(b"unasked")], ids=["closed", "spoken to"])
async def test_an_idle_connection_that_ends_is_dropped_before_it_is_used(
    peer, transport, behaviour
):
    stale = metrics.LLM_STALE_CONNECTIONS._value.get()
    go = asyncio.Event()

    async def ends_afterwards(exchange):
        await OK(exchange)
        await go.wait()
        await behaviour(exchange)

    peer.script = [ends_afterwards]
    await post(transport, peer.url)
    [origin] = transport._origins.values()
    assert origin._idle
    go.set()
    await until(lambda: not origin._idle, lambda: f"{origin._idle}")
    await post(transport, peer.url)
    assert metrics.LLM_STALE_CONNECTIONS._value.get() == stale
    assert peer.accepted == 2


async def test_a_connection_that_nobody_uses_is_closed(peer, transport, monkeypatch):
    monkeypatch.setattr("generation.llm.transport.idle.IDLE_S", 0.01)
    await post(transport, peer.url)
    await peer.until(lambda: peer.connected == 0, "closing of the idle connection")


async def test_more_idle_connections_than_the_bound_are_closed(peer, transport, monkeypatch):
    monkeypatch.setattr("generation.llm.transport.idle.MAX_IDLE", 2)
    peer.release.clear()
    calls = [asyncio.create_task(post(transport, peer.url)) for _ in range(5)]
    await peer.until(lambda: peer.waiting == 5, "the arrival of all")
    peer.release.set()
    await asyncio.gather(*calls)
    await peer.until(lambda: peer.connected == 2, "closing of the others")


# --- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["whole", "broken", "cancelled"])
async def test_a_reply_is_gone_without_the_cycle_collector(peer, transport, end):
    """It rarely runs while we serve."""
    peer.behave = {
        "whole": says(200, b"ok"),
        "broken": sends(CHUNKED + b"1\r\na\r\n"),
        "cancelled": writes(CHUNKED),
    }[end]
    replies = []

    async def call():
        response = await ask(transport, peer.url)
        replies.append(weakref.ref(response.stream))
        async with contextlib.aclosing(response):
            async for _ in response.stream:
                pass

    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(call())
        if end == "cancelled":
            await until(lambda: replies, lambda: f"no head at {peer!r}")
            task.cancel()
        await asyncio.wait([task])
        if end == "broken":
            error = task.exception()
            assert isinstance(error, httpx.RemoteProtocolError)
            error.__traceback__ = None
            del error
        del task
        for _ in range(3):  # the loop's own turn of the connection's end
            await asyncio.sleep(0)
        assert replies[0]() is None, gc.get_referrers(replies[0]())
    finally:
        gc.enable()
