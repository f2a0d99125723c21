"""What the transport has to get right, whichever stands there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import ssl
import sys
import time
from pathlib import Path

import httpx
import pytest
import trustme

from generation.conf import parse
from generation.errors import LLMMisconfigured
from generation.llm.client import LLMClient
from generation.llm.transport import Transport
from generation.telemetry import metrics
from tests.support.dialects import AnthropicDialect
from tests.support.provider import (
    Provider,
    hangs,
    resets,
    says,
    sends,
    waits_for,
)

OK = says(200, b"ok")
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server():
    async with Provider(OK).serve() as running:
        yield running


@pytest.fixture
async def transport():
    async with Transport(connect_timeout=2) as transport:
        yield transport


async def post(transport, url, *, content=b"{}", **headers):
    request = httpx.Request("POST", url, headers=headers, content=content)
    response = await transport.handle_async_request(request)
    body = b"".join([chunk async for chunk in response.stream])
    await response.stream.aclose()
    return response, body


async def test_headers_and_body_arrive_and_come_back_unchanged(server, transport):
    server.behave = says(418, b"tea", x_a="1", x_b="two words")
    response, body = await post(transport, server.url, **{"x-api-key": "k", "x-other": "a, b"})
    assert (response.status_code, body) == (418, b"tea")
    assert (response.headers["x-a"], response.headers["x-b"]) == ("1", "two words")
    [request] = server.requests
    assert request.body == b"{}"
    assert (request.headers["x-api-key"], request.headers["x-other"]) == ("k", "a, b")


async def test_a_connection_is_used_again(server, transport):
    for _ in range(5):
        await post(transport, server.url)
    assert server.accepted == 1, "keep-alive is off: each call pays for a handshake"


async def test_closing_the_transport_closes_its_idle_connections(server):
    async with Transport(connect_timeout=2) as transport:
        await post(transport, server.url)
        assert server.connected == 1
    await server.until(lambda: server.connected == 0, "closing of the idle connection")


async def test_a_call_cancelled_before_the_answer_closes_its_connection(server, transport):
    server.behave = hangs
    task = asyncio.create_task(post(transport, server.url))
    await server.until(lambda: server.waiting == 1, "the request")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(lambda: server.connected == 0, "closing: the call runs on and costs money")


async def test_a_call_cancelled_within_the_body_closes_its_connection(server, transport):
    async def begins(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await hangs(exchange)

    server.behave = begins
    response = await transport.handle_async_request(httpx.Request("POST", server.url, content=b""))
    task = asyncio.create_task(anext(aiter(response.stream)))
    assert await task == b"abc"
    task = asyncio.create_task(anext(aiter(response.stream)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await response.stream.aclose()
    await server.until(lambda: server.connected == 0, "closing")


async def test_a_half_read_answer_that_is_closed_closes_its_connection(server, transport):
    async def begins(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await hangs(exchange)

    server.behave = begins
    response = await transport.handle_async_request(httpx.Request("POST", server.url, content=b""))
    await response.stream.aclose()
    await server.until(lambda: server.connected == 0, "closing")


async def test_chunks_arrive_as_they_are_sent(server, transport):
    go_on = asyncio.Event()

    async def speaks(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for word in (b"one", b"two", b"three"):
            await exchange.send(b"%x\r\n%s\r\n" % (len(word), word))
            await go_on.wait()  # the next is sent only after this one was read
            go_on.clear()
        await exchange.send(b"0\r\n\r\n")

    server.behave = speaks
    response = await transport.handle_async_request(httpx.Request("POST", server.url, content=b""))
    words = []
    async with asyncio.timeout(5):
        async for word in response.stream:
            words.append(word)
            go_on.set()
    assert words == [b"one", b"two", b"three"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(server, transport, status):
    server.behave = says(status, b"", location=f"{server.url}/elsewhere")
    response, _ = await post(transport, server.url)
    assert response.status_code == status
    assert len(server.requests) == 1, "the key was sent to a place that a reply named"


async def test_no_cookie_is_kept(server, transport):
    server.behave = says(200, b"ok", set_cookie="a=b")
    await post(transport, server.url)
    await post(transport, server.url)
    assert "cookie" not in server.requests[1].headers


async def test_nothing_is_decompressed(server, transport):
    packed = gzip.compress(b"x" * 1000)
    server.behave = says(200, packed, content_encoding="gzip")
    response, body = await post(transport, server.url)
    assert body == packed
    assert response.headers["content-encoding"] == "gzip"


async def test_five_thousand_at_once(server, transport):
    everyone_is_here = asyncio.Event()
    server.behave = waits_for(everyone_is_here, OK)
    tasks = [asyncio.create_task(post(transport, server.url)) for _ in range(5000)]
    await server.until(lambda: server.waiting == 5000, "the arrival of all 5,000", seconds=30)
    everyone_is_here.set()
    answers = await asyncio.gather(*tasks)
    assert all(response.status_code == 200 for response, _ in answers)


async def test_cancelled_calls_leave_nothing_in_memory(server, transport):
    server.behave = hangs

    async def count_after_cancelling(calls):
        tasks = [asyncio.create_task(post(transport, server.url)) for _ in range(calls)]
        await server.until(lambda: server.waiting == calls, "the requests")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks, task
        await server.until(lambda: not server.tasks, "closing")
        server.requests.clear()
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
    server, transport, behaviour, kind
):
    server.behave = behaviour
    with pytest.raises(kind) as caught:
        await post(transport, server.url)
    assert not isinstance(caught.value, httpx.TimeoutException)


async def test_a_refused_connection_is_a_connect_error(server, transport):
    async with Provider(OK).serve() as other:
        url = other.url
    with pytest.raises(httpx.ConnectError):
        await post(transport, url)


A_CALL_AND_THE_END = """
import asyncio, httpx
from generation.llm.transport import Transport
async def main():
    async with Transport(connect_timeout=5) as transport:
        try:
            await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:1"))
        except httpx.ConnectError:
            pass
asyncio.run(main())
"""


async def test_a_process_that_ends_right_after_a_call_ends_well():
    """Eight at once, since the fault needs a busy machine, and shows in one of ten."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", A_CALL_AND_THE_END, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(8)
    ]
    said = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said


async def test_an_unknown_host_is_a_connect_error(transport):
    with pytest.raises(httpx.ConnectError):
        await post(transport, "http://no-such-host.invalid")


async def test_connecting_has_its_own_bound(server):
    async def never_shakes_hands(reader, writer):
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(never_shakes_hands, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with Transport(connect_timeout=0.3) as transport:
        began = time.monotonic()
        with pytest.raises(httpx.ConnectTimeout):
            await post(transport, f"https://127.0.0.1:{port}")
        assert time.monotonic() - began < 4
    listener.close()


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """A certificate authority that SSL_CERT_FILE names."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return authority


def serving(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return Provider(OK).serve(ssl=context)


async def test_a_certificate_of_a_trusted_authority_is_accepted(authority):
    async with serving(authority) as server, Transport(connect_timeout=5) as transport:
        response, _ = await post(transport, server.url)
    assert response.status_code == 200


async def test_a_strangers_certificate_is_refused(authority):
    async with serving(trustme.CA()) as server, Transport(connect_timeout=5) as transport:
        with pytest.raises(httpx.ConnectError):
            await post(transport, server.url)
        assert server.requests == [], "the key was sent to a stranger"


# --- a connection that the provider closes just when it is used again --------------------------


async def used_once(server, transport):
    """Leaves one idle connection."""
    await post(transport, server.url)
    assert server.accepted == server.connected == 1


@pytest.mark.parametrize("behaviour", [resets, sends(b"")], ids=["reset", "closed"])
@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_a_stale_connection_is_replaced_by_a_fresh_one(server, transport, behaviour, size):
    await used_once(server, transport)
    server.script = [behaviour]
    response, body = await post(transport, server.url, content=b"x" * size)
    assert (response.status_code, body) == (200, b"ok")
    assert (server.calls, server.accepted) == (3, 2)
    assert len(server.requests[2].body) == size


async def test_a_stale_connection_is_replaced_under_tls_as_well(authority):
    async with serving(authority) as server, Transport(connect_timeout=5) as transport:
        for behaviour in (resets, sends(b"")):
            await post(transport, server.url)
            server.script = [behaviour]
            response, _ = await post(transport, server.url)
            assert response.status_code == 200
        assert server.calls == 6


async def test_a_stale_connection_is_replaced_once(server, transport):
    await used_once(server, transport)
    server.behave = resets
    with pytest.raises(httpx.TransportError):
        await post(transport, server.url)
    assert server.calls == 3, "one call, one repetition on a fresh connection, and no more"
    with pytest.raises(httpx.TransportError):
        await post(transport, server.url)
    assert server.calls == 4, "nothing was idle: a reset of a fresh connection is a failure"


async def test_a_reset_of_a_fresh_connection_is_not_repeated(server, transport):
    server.behave = resets
    with pytest.raises(httpx.TransportError):
        await post(transport, server.url)
    assert server.calls == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(b"NOT HTTP\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
    ],
    ids=["garbage", "cut body"],
)
async def test_a_reply_that_has_begun_is_not_asked_for_again(server, transport, behaviour):
    await used_once(server, transport)
    server.script = [behaviour]
    with pytest.raises(httpx.TransportError):
        await post(transport, server.url)
    assert server.calls == 2, "the provider has worked on the prompt, and may charge for it"


async def test_a_connection_closed_after_a_while_is_not_stale(server, transport, monkeypatch):
    monkeypatch.setattr("generation.llm.transport._STALE_WITHIN_S", 0.05)

    async def works_then_breaks_off(exchange):
        await asyncio.sleep(0.2)
        exchange.reset()

    await used_once(server, transport)
    server.script = [works_then_breaks_off]
    with pytest.raises(httpx.TransportError):
        await post(transport, server.url)
    assert server.calls == 2


async def test_when_all_idle_connections_are_stale_every_call_still_succeeds(server, transport):
    everyone_is_here = asyncio.Event()
    server.behave = waits_for(everyone_is_here, OK)
    first = [asyncio.create_task(post(transport, server.url)) for _ in range(50)]
    await server.until(lambda: server.waiting == 50, "the arrival of all")
    everyone_is_here.set()
    await asyncio.gather(*first)
    assert server.connected == 50
    server.behave, server.script = OK, [resets] * 50
    second = await asyncio.gather(*(post(transport, server.url) for _ in range(50)))
    assert {response.status_code for response, _ in second} == {200}
    assert server.calls == 150


async def test_a_stale_connection_is_counted_and_is_no_attempt(dialect, server, client, prompt):
    """No retry, no outage signal, and nothing taken from the retry budget."""
    server.behave = says(200, dialect.answer())
    stale = metrics.LLM_STALE_CONNECTIONS._value.get()
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        for _ in range(30):  # three times the budget of a quiet service
            await llm.complete(prompt)
            server.script = [resets]
            outcome = await llm.complete(prompt)
            assert outcome.reply is not None, outcome.error
            assert [attempt.status for attempt in outcome.attempts] == [200]
    assert metrics.LLM_STALE_CONNECTIONS._value.get() == stale + 30
    assert server.calls == 90


# --- proxies ----------------------------------------------------------------------------------


@pytest.fixture
async def proxy(monkeypatch):
    """Refuses everybody, and is what the environment names."""
    asked = []

    async def refuses(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 407 No\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(refuses, "127.0.0.1", 0)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://someone:canary-password@{address}")
        monkeypatch.setenv(name.lower(), f"http://someone:canary-password@{address}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield address, asked
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.7", "app.localhost"])
async def test_this_machine_is_never_asked_through_a_proxy(server, proxy, host):
    url = server.url.replace("127.0.0.1", host)
    async with Transport(connect_timeout=5) as transport:
        with contextlib.suppress(httpx.ConnectError):  # it listens at one of these addresses
            response, _ = await post(transport, url)
            assert response.status_code == 200
    assert proxy[1] == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_is_named_without_its_password(proxy, scheme):
    address, asked = proxy
    async with Transport(connect_timeout=5) as transport:
        with pytest.raises(httpx.ProxyError, match=rf"the proxy at http://{address} demands") as no:
            await post(transport, f"{scheme}://provider.invalid/v1")
    assert len(asked) == 1
    assert "canary" not in str(no.value)


async def test_a_proxy_that_refuses_is_the_operators_to_fix(proxy, prompt, caplog):
    address, _ = proxy
    values = AnthropicDialect().settings("http://provider.invalid")
    async with LLMClient.open(parse(values)) as llm:
        outcome = await llm.complete(prompt)
    assert isinstance(outcome.error, LLMMisconfigured)
    assert address not in outcome.error.detail
    assert f"the proxy at http://{address} demands credentials" in caplog.text
    assert "canary" not in caplog.text


async def test_a_proxy_that_is_away_is_named(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Transport(connect_timeout=5) as transport:
        with pytest.raises(httpx.ConnectError, match=r"the proxy at http://127\.0\.0\.1:1 made no"):
            await post(transport, "https://provider.invalid/v1")


# --- a machine without certificates -----------------------------------------------------------


@pytest.mark.parametrize("bundle", ["missing.pem", "garbage.pem", "empty.pem"])
async def test_without_certificates_http_works_and_https_trusts_nobody(
    server, tmp_path, monkeypatch, bundle, authority
):
    (tmp_path / "garbage.pem").write_text("garbage")
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / bundle))
    async with serving(authority) as secure, Transport(connect_timeout=5) as transport:
        response, _ = await post(transport, server.url)
        assert response.status_code == 200
        with pytest.raises(httpx.ConnectError):
            await post(transport, secure.url)


async def test_https_goes_through_the_proxy_that_the_environment_names(server, monkeypatch):
    asked = []

    async def refuses(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(refuses, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("https_proxy", address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with Transport(connect_timeout=5) as transport:
        with pytest.raises(httpx.TransportError):
            await post(transport, "https://provider.invalid/v1")
    proxy.close()
    assert asked == [b"CONNECT provider.invalid:443 HTTP/1.1"]
