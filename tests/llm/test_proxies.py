"""Which calls go through a proxy, and who is to blame when it refuses."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from generation.conf import parse
from generation.errors import LLMMisconfigured
from generation.llm.client import LLMClient
from generation.llm.transport import Transport
from tests.support.dialects import AnthropicDialect
from tests.support.transport import post
from tests.support.waiting import HANG_S


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
