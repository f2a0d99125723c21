"""Which calls go through a proxy, and who is to blame when it refuses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import ssl

import httpx
import pytest

from generation.conf import parse
from generation.errors import LLMMisconfigured
from generation.llm.client import LLMClient
from generation.llm.transport import Transport, proxies
from tests.support.dialects import AnthropicDialect
from tests.support.provider import Provider
from tests.support.transport import OK, post
from tests.support.waiting import HANG_S, until


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
async def test_this_machine_is_never_asked_through_a_proxy(peer, proxy, host):
    url = peer.url.replace("127.0.0.1", host)
    async with Transport(connect_timeout=HANG_S) as transport:
        with contextlib.suppress(httpx.ConnectError):  # it listens at one of these addresses
            response, _ = await post(transport, url)
            assert response.status_code == 200
    assert proxy[1] == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_is_named_without_its_password(proxy, scheme):
    address, asked = proxy
    async with Transport(connect_timeout=HANG_S) as transport:
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
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(httpx.ConnectError, match=r"the proxy at http://127\.0\.0\.1:1 made no"):
            await post(transport, "https://provider.invalid/v1")


async def test_https_goes_through_the_proxy_that_the_environment_names(peer, monkeypatch):
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
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(httpx.TransportError):
            await post(transport, "https://provider.invalid/v1")
    proxy.close()
    assert asked == [b"CONNECT provider.invalid:443 HTTP/1.1"]


class Forwarding:
    """A proxy that works: it asks `server` in the place of every host."""

    def __init__(self, server):
        self._server = server
        self.heads: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def __call__(self, reader, writer):
        self.tasks.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        host, _, port = self._server.url.partition("://")[2].partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Go on\r\nx: y\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def forwarding(server, monkeypatch, scheme="http", **options):
    forward = Forwarding(server)
    listener = await asyncio.start_server(forward, "127.0.0.1", 0, **options)
    address = f"{scheme}://someone:canary%21@127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
        monkeypatch.setenv(name.lower(), address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield forward
    listener.close()
    await asyncio.gather(*forward.tasks)


CREDENTIALS = base64.b64encode(b"someone:canary!")


async def test_http_goes_through_a_proxy_that_takes_credentials(peer, monkeypatch):
    async with (
        forwarding(peer, monkeypatch) as proxy,
        Transport(connect_timeout=HANG_S) as transport,
    ):
        for _ in range(2):
            response, body = await post(transport, "http://provider.invalid/v1?a=b")
            assert (response.status_code, body) == (200, b"ok")
    [head] = proxy.heads  # the connection was used again
    assert head.startswith(b"POST http://provider.invalid/v1?a=b HTTP/1.1\r\n")
    assert b"basic " + CREDENTIALS in head.replace(b"Basic", b"basic")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_https_goes_through_a_tunnel_to_the_server_that_was_named(
    authority, monkeypatch, scheme
):
    """The proxy may speak TLS itself. Its credentials are for it alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "provider.invalid").configure_cert(context)
    options = {"ssl": context} if scheme == "https" else {}
    async with (
        Provider(OK).serve(ssl=context) as server,
        forwarding(server, monkeypatch, scheme, **options) as proxy,
        Transport(connect_timeout=HANG_S) as transport,
    ):
        for _ in range(2):
            response, body = await post(transport, "https://provider.invalid/v1")
            assert (response.status_code, body) == (200, b"ok")
        if scheme == "http":  # Python 3.11 trips over a failed handshake in TLS within TLS
            with pytest.raises(httpx.ConnectError):
                await post(transport, "https://stranger.invalid/v1")
    assert proxy.heads[0].startswith(b"CONNECT provider.invalid:443 HTTP/1.1\r\n")
    assert CREDENTIALS in proxy.heads[0]
    assert len(server.requests) == 2, "a server with another's certificate was sent the key"
    assert "proxy-authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("exceptions", "is_excepted"),
    [
        ("provider.invalid", True),
        (".invalid", True),
        ("other.invalid, provider.invalid", True),
        ("*", True),
        ("vider.invalid", False),
        ("10.0.0.0/8", False),
    ],
)
async def test_hosts_that_the_environment_excepts_are_asked_directly(
    peer, proxy, monkeypatch, exceptions, is_excepted
):
    monkeypatch.setenv("NO_PROXY", exceptions)
    monkeypatch.setenv("no_proxy", exceptions)
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(httpx.ConnectError if is_excepted else httpx.ProxyError):
            await post(transport, "http://provider.invalid/v1")
    assert bool(proxy[1]) is not is_excepted


@pytest.mark.parametrize(
    ("exceptions", "url", "is_excepted"),
    [
        ("10.0.0.0/8,2001:db8::/32", "http://10.1.2.3", True),
        ("10.0.0.0/8,2001:db8::/32", "http://[2001:db8::1]", True),
        ("10.0.0.0/8,2001:db8::/32", "http://11.1.2.3", False),
        ("provider.invalid:80", "http://provider.invalid", True),
        ("provider.invalid:80", "http://provider.invalid:8080", False),
        ("*.invalid:8080", "http://provider.invalid:8080", True),
        ("[2001:db8::1]", "http://[2001:db8::1]:8080", True),
        ("[2001:db8::1]:80", "http://[2001:db8::1]:8080", False),
        ("2001:db8::1", "http://[2001:db8::1]:8080", True),
    ],
)
def test_networks_and_ports_can_be_excepted(monkeypatch, exceptions, url, is_excepted):
    monkeypatch.setenv("http_proxy", "http://[2001:db8::7]:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    found = proxies.find(httpx.URL(url))
    if is_excepted:
        assert found is None
    else:
        assert str(found) == "the proxy at http://[2001:db8::7]:3128"


@pytest.mark.parametrize(
    "address",
    ["socks5://proxy.invalid:1080", "http://:80", "http://a:b", "http://a:1#canary@proxy.invalid"],
)
async def test_a_proxy_that_no_request_can_go_through_is_an_error(monkeypatch, address):
    monkeypatch.setenv("http_proxy", address)
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(
            httpx.ProxyError, match="what the environment names for http is no HTTP proxy"
        ):
            await post(transport, "http://provider.invalid/v1")


@pytest.fixture
async def proxied(monkeypatch):
    """`await proxied(behaves)`: a proxy that is asked for https, and its address."""
    listeners = []

    async def listen(behaves):
        listener = await asyncio.start_server(behaves, "127.0.0.1", 0)
        listeners.append(listener)
        address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("https_proxy", address)
        return address

    yield listen
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "it closed the connection"),
        (b"HTTP/1.1 200 Go on\r\n", "it closed the connection"),
        (b"HTTP/1.1 502 No\r\n\r\n", "it answers 502"),
        (b"HTTP/1.1 403 No\r\ncontent-length: 4\r\n\r\nbody", "it answers 403"),
        (b"SSH-2.0\r\n\r\n", "its answer can't be read"),
        (b"HTTP/1.1 200 Go on\r\n\r\nand more", "its answer can't be read"),
        (b"HTTP/1.1 200 Go on\r\nx: " + b"y" * 65_536, "its answer is too long"),
    ],
    ids=["nothing", "half", "502", "a body", "no HTTP", "more than a head", "an endless head"],
)
async def test_a_tunnel_that_is_not_opened_is_a_connect_error(proxied, answer, reason):
    async def behaves(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    address = await proxied(behaves)
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(
            httpx.ConnectError, match=f"the proxy at {address} made no connection: {reason}"
        ):
            await post(transport, "https://provider.invalid/v1")


async def test_a_proxy_may_explain_in_a_body_that_it_demands_credentials(proxied):
    """As Squid does, and in the same segment."""

    async def behaves(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 No\r\ncontent-length: 4\r\n\r\nbody")
        writer.close()

    address = await proxied(behaves)
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(httpx.ProxyError, match=f"the proxy at {address} demands credentials"):
            await post(transport, "https://provider.invalid/v1")


async def test_a_call_that_is_cancelled_before_its_tunnel_is_open_leaves_nothing(proxied):
    """Neither a connection, nor a failure that nobody has retrieved, which asyncio would log."""
    connected = set()

    async def behaves(reader, writer):
        connected.add(writer)
        await reader.read()
        connected.discard(writer)
        writer.close()

    await proxied(behaves)
    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    for turns in range(20):
        async with Transport(connect_timeout=HANG_S) as transport:
            call = asyncio.create_task(post(transport, "https://provider.invalid/v1"))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
    await until(lambda: not connected, lambda: f"{connected}")
    gc.collect()
    assert not logged
