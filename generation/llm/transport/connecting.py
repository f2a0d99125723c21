"""Makes connections: addresses, TCP, a proxy's tunnel, TLS, all within one time limit."""

from __future__ import annotations

import asyncio
import contextvars
import ssl
from typing import TYPE_CHECKING, TypeVar

import aiohappyeyeballs
import httpx

from generation.llm.transport.addresses import Addresses
from generation.llm.transport.tunnel import Tunnel
from generation.tasks import in_own_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.llm.transport.proxies import Proxy

_NEXT_ADDRESS_S = 0.25  # after which the next address is tried beside the first (RFC 8305)

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.Protocol)


class Connector:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._addresses = Addresses()
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])

    async def aclose(self) -> None:
        await self._addresses.aclose()

    async def connect(
        self, url: httpx.URL, proxy: Proxy | None, make: Callable[[], AnyProtocol]
    ) -> AnyProtocol:
        """Raises `httpx.ConnectTimeout`, `httpx.ConnectError`, and `httpx.ProxyError` for a proxy
        that demands credentials."""
        # What the loop calls for a connection runs in the context that made it, and a connection
        # outlives the request that it was made for.
        work = self._open(url, proxy, make)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await in_own_task(work, context=contextvars.Context())
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {self._timeout_s:g} s") from None
        except (OSError, RuntimeError, UnicodeError) as error:  # uvloop raises RuntimeError, too
            prefix = f"{proxy} made no connection: " if proxy else ""
            raise httpx.ConnectError(f"{prefix}{error}") from error

    async def _open(
        self, url: httpx.URL, proxy: Proxy | None, make: Callable[[], AnyProtocol]
    ) -> AnyProtocol:
        is_secure = url.scheme == "https"
        host, port = url.host, url.port or (443 if is_secure else 80)
        if proxy is None:
            return await self._reach(host, port, make, is_secure=is_secure)
        if not is_secure:
            return await self._reach(
                proxy.host, proxy.port, make, is_secure=proxy.scheme == "https"
            )
        tunnel = await self._reach(
            proxy.host, proxy.port, Tunnel, is_secure=proxy.scheme == "https"
        )
        try:
            await tunnel.open(host, port, proxy)
            return await self._begin_tls(tunnel.transport, host, make())
        except BaseException:
            tunnel.transport.abort()
            raise

    async def _begin_tls(
        self, transport: asyncio.Transport, host: str, protocol: AnyProtocol
    ) -> AnyProtocol:
        secure = await asyncio.get_running_loop().start_tls(
            transport, protocol, self._tls, server_hostname=host
        )
        if secure is None:
            raise ConnectionError("the connection was closed")
        protocol.connection_made(secure)
        return protocol

    async def _reach(
        self, host: str, port: int, make: Callable[[], AnyProtocol], *, is_secure: bool
    ) -> AnyProtocol:
        loop = asyncio.get_running_loop()
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses.find(host, port), happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        try:
            _, protocol = await loop.create_connection(
                make,
                sock=sock,
                ssl=self._tls if is_secure else None,
                server_hostname=host if is_secure else None,
            )
        except BaseException:
            sock.close()
            raise
        return protocol
