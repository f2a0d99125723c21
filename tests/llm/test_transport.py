"""What the transport has to get right, whichever stands there."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time

import httpx
import pytest
import trustme

from generation.llm.transport import Transport
from tests.support.ports import free_port
from tests.support.provider import (
    hangs,
    resets,
    says,
    sends,
    waits_for,
)
from tests.support.transport import OK, post, serving
from tests.support.waiting import HANG_S


async def test_headers_and_body_arrive_and_come_back_unchanged(peer, transport):
    peer.behave = says(418, b"tea", x_a="1", x_b="two words")
    response, body = await post(transport, peer.url, **{"x-api-key": "k", "x-other": "a, b"})
    assert (response.status_code, body) == (418, b"tea")
    assert (response.headers["x-a"], response.headers["x-b"]) == ("1", "two words")
    [request] = peer.requests
    assert request.body == b"{}"
    assert (request.headers["x-api-key"], request.headers["x-other"]) == ("k", "a, b")


async def test_a_connection_is_used_again(peer, transport):
    for _ in range(5):
        await post(transport, peer.url)
    assert peer.accepted == 1, "keep-alive is off: each call pays for a handshake"


async def test_closing_the_transport_closes_its_idle_connections(peer):
    async with Transport(connect_timeout=HANG_S) as transport:
        await post(transport, peer.url)
        assert peer.connected == 1
    await peer.until(lambda: peer.connected == 0, "closing of the idle connection")


async def test_a_closed_transport_keeps_no_connection_of_a_call_that_ends_later(peer):
    peer.release.clear()
    async with Transport(connect_timeout=HANG_S) as transport:
        call = asyncio.create_task(post(transport, peer.url))
        await peer.until(lambda: peer.waiting == 1, "the request")
    peer.release.set()
    assert (await call)[1] == b"ok"
    await peer.until(lambda: peer.connected == 0, "closing")


async def test_a_call_cancelled_before_the_answer_closes_its_connection(peer, transport):
    peer.behave = hangs
    task = asyncio.create_task(post(transport, peer.url))
    await peer.until(lambda: peer.waiting == 1, "the request")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.until(lambda: peer.connected == 0, "closing: the call runs on and costs money")


async def test_a_call_cancelled_within_the_body_closes_its_connection(peer, transport):
    async def begins(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await hangs(exchange)

    peer.behave = begins
    response = await transport.handle_async_request(httpx.Request("POST", peer.url, content=b""))
    task = asyncio.create_task(anext(aiter(response.stream)))
    assert await task == b"abc"
    task = asyncio.create_task(anext(aiter(response.stream)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await response.stream.aclose()
    await peer.until(lambda: peer.connected == 0, "closing")


async def test_a_half_read_answer_that_is_closed_closes_its_connection(peer, transport):
    async def begins(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await hangs(exchange)

    peer.behave = begins
    response = await transport.handle_async_request(httpx.Request("POST", peer.url, content=b""))
    await response.stream.aclose()
    await peer.until(lambda: peer.connected == 0, "closing")


async def test_chunks_arrive_as_they_are_sent(peer, transport):
    go_on = asyncio.Event()

    async def speaks(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for word in (b"one", b"two", b"three"):
            await exchange.send(b"%x\r\n%s\r\n" % (len(word), word))
            await go_on.wait()  # the next is sent only after this one was read
            go_on.clear()
        await exchange.send(b"0\r\n\r\n")

    peer.behave = speaks
    response = await transport.handle_async_request(httpx.Request("POST", peer.url, content=b""))
    words = []
    async with asyncio.timeout(HANG_S):
        async for word in response.stream:
            words.append(word)
            go_on.set()
    assert words == [b"one", b"two", b"three"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(peer, transport, status):
    peer.behave = says(status, b"", location=f"{peer.url}/elsewhere")
    response, _ = await post(transport, peer.url)
    assert response.status_code == status
    assert len(peer.requests) == 1, "the key was sent to a place that a reply named"


async def test_no_cookie_is_kept(peer, transport):
    peer.behave = says(200, b"ok", set_cookie="a=b")
    await post(transport, peer.url)
    await post(transport, peer.url)
    assert "cookie" not in peer.requests[1].headers


async def test_nothing_is_decompressed(peer, transport):
    packed = gzip.compress(b"x" * 1000)
    peer.behave = says(200, packed, content_encoding="gzip")
    response, body = await post(transport, peer.url)
    assert body == packed
    assert response.headers["content-encoding"] == "gzip"


@pytest.mark.served
async def test_two_thousand_at_once(peer, transport):
    everyone_is_here = asyncio.Event()
    peer.behave = waits_for(everyone_is_here, OK)
    tasks = [asyncio.create_task(post(transport, peer.url)) for _ in range(2000)]
    await peer.until(lambda: peer.waiting == 2000, "the arrival of all 2,000")
    everyone_is_here.set()
    answers = await asyncio.gather(*tasks)
    assert all(response.status_code == 200 for response, _ in answers)


async def test_cancelled_calls_leave_nothing_in_memory(peer, transport):
    peer.behave = hangs

    async def count_after_cancelling(calls):
        tasks = [asyncio.create_task(post(transport, peer.url)) for _ in range(calls)]
        await peer.until(lambda: peer.waiting == calls, "the requests")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks, task
        await peer.until(lambda: not peer.tasks, "closing")
        peer.requests.clear()
        gc.collect()
        return len(gc.get_objects())

    baseline = await count_after_cancelling(50)  # whatever is loaded once is in it
    grown = await count_after_cancelling(200) - baseline
    assert grown < 200, f"{grown} objects more after 200 cancelled calls"


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (resets, httpx.TransportError),
        (sends(b""), httpx.RemoteProtocolError),
        (sends(b"NOT HTTP\r\n\r\n"), httpx.RemoteProtocolError),
        (sends(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), httpx.RemoteProtocolError),
        (
            sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            httpx.RemoteProtocolError,
        ),
    ],
    ids=["reset", "closed", "garbage", "cut body", "cut chunks"],
)
async def test_a_broken_connection_is_an_error_and_never_a_timeout(
    peer, transport, behaviour, kind
):
    peer.behave = behaviour
    with pytest.raises(kind) as caught:
        await post(transport, peer.url)
    assert not isinstance(caught.value, httpx.TimeoutException)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        (
            b"HTTP/1.1 200\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2 \r\nok\r\n0\r\n\r\n"
        ),
        (
            b"\r\nHTTP/1.1 200 OK\r\nupgrade: h2c\r\nconnection: upgrade\r\n"
            b"content-length: 2\r\n\r\nok"
        ),
        b"HTTP/1.0 200 OK\r\nx: \xff\r\n\r\nok",
    ],
    ids=["without CR", "two lengths", "an offer", "neither length nor UTF-8"],
)
async def test_what_servers_write_differently_is_understood(peer, transport, reply):
    peer.behave = sends(reply)
    response, body = await post(transport, peer.url)
    assert (response.status_code, body) == (200, b"ok")
    assert dict(response.headers), "a header that can't be decoded hides all"


async def test_a_refused_connection_is_a_connect_error(peer, transport):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(httpx.ConnectError):
        await post(transport, url)


async def test_an_unknown_host_is_a_connect_error(transport):
    with pytest.raises(httpx.ConnectError):
        await post(transport, "http://no-such-host.invalid")


async def test_connecting_has_its_own_bound(peer):
    async def never_shakes_hands(reader, writer):
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(never_shakes_hands, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with Transport(connect_timeout=0.3) as transport:
        began = time.monotonic()
        with pytest.raises(httpx.ConnectTimeout):
            await post(transport, f"https://127.0.0.1:{port}")
        assert time.monotonic() - began < HANG_S
    listener.close()


async def test_a_certificate_of_a_trusted_authority_is_accepted(authority):
    async with serving(authority) as server, Transport(connect_timeout=HANG_S) as transport:
        response, _ = await post(transport, server.url)
    assert response.status_code == 200


async def test_a_strangers_certificate_is_refused(authority):
    async with serving(trustme.CA()) as server, Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(httpx.ConnectError):
            await post(transport, server.url)
        assert server.requests == [], "the key was sent to a stranger"


@pytest.mark.parametrize("bundle", ["missing.pem", "garbage.pem", "empty.pem"])
async def test_without_certificates_http_works_and_https_trusts_nobody(
    peer, tmp_path, monkeypatch, bundle, authority
):
    (tmp_path / "garbage.pem").write_text("garbage")
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / bundle))
    async with serving(authority) as secure, Transport(connect_timeout=HANG_S) as transport:
        response, _ = await post(transport, peer.url)
        assert response.status_code == 200
        with pytest.raises(httpx.ConnectError):
            await post(transport, secure.url)
