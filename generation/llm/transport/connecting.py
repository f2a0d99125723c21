"""Makes connections: addresses, TCP, a proxy's tunnel, TLS, all within one time limit."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import ssl
from functools import cached_property
from typing import TYPE_CHECKING

import aiohappyeyeballs
import httpx

from generation.llm.transport import trust
from generation.llm.transport.addresses import Addresses
from generation.llm.transport.proxies import PORTS
from generation.llm.transport.tunnel import Tunnel
from generation.tasks import in_own_task

if TYPE_CHECKING:
    from generation.llm.transport.connection import Connection
    from generation.llm.transport.proxies import Proxy

_NEXT_ADDRESS_S = 0.25  # after which the next address is tried beside the first (RFC 8305)


class Connector:
    def __init__(self, timeout_s: float, authorities: str | None) -> None:
        self._timeout_s = timeout_s
        self._authorities = authorities
        self._addresses = Addresses()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when it is needed."""
        return trust.tls(self._authorities)

    async def aclose(self) -> None:
        await self._addresses.aclose()

    async def connect(self, connection: Connection, url: httpx.URL, proxy: Proxy | None) -> None:
        """Open the connection to a server. If that fails or is cancelled, it is closed.

        Raises `httpx.ConnectTimeout`, `httpx.ConnectError`, and `httpx.ProxyError` for a proxy
        that demands credentials.
        """
        # What the loop calls for a connection runs in the context that opened it, and a connection
        # outlives the request that it was opened for.
        work = self._open(connection, url, proxy)
        try:
            async with asyncio.timeout(self._timeout_s):
                await in_own_task(work, context=contextvars.Context())
        except TimeoutError as error:
            connection.abort()
            raise httpx.ConnectTimeout(f"no connection within {self._timeout_s:g} s") from error
        except (OSError, RuntimeError, UnicodeError) as error:  # uvloop raises RuntimeError, too
            connection.abort()
            prefix = f"{proxy} made no connection: " if proxy else ""
            raise httpx.ConnectError(f"{prefix}{_why(error)}") from error
        except BaseException:
            connection.abort()  # it may have been opened in the step that is cancelled
            raise

    async def _open(self, connection: Connection, url: httpx.URL, proxy: Proxy | None) -> None:
        is_secure = url.scheme == "https"
        host, port = url.raw_host.decode("ascii"), url.port or PORTS[url.scheme]
        if proxy is None:
            await self._reach(connection, host, port, is_secure=is_secure)
        elif not is_secure:
            await self._reach(connection, proxy.host, proxy.port, is_secure=proxy.is_secure)
        else:
            tunnel = Tunnel()
            await self._reach(tunnel, proxy.host, proxy.port, is_secure=proxy.is_secure)
            try:
                await tunnel.open(host, port, proxy)
            except BaseException:
                tunnel.transport.abort()
                raise
            await self._secure(tunnel.transport, connection, host)

    async def _reach(
        self, protocol: asyncio.Protocol, host: str, port: int, *, is_secure: bool
    ) -> None:
        addresses = await self._addresses.find(host, port)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        # From here on the loop closes it, also if we are cancelled. Closed by us, its number would
        # be another connection's while the loop still acts on it.
        first = asyncio.Protocol() if is_secure else protocol
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: first, sock=sock)
        if is_secure:
            await self._secure(transport, protocol, host)

    async def _secure(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, host: str
    ) -> None:
        """Have TLS take over a connection. If that fails or is cancelled, it is closed."""
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport, protocol, self._tls, server_hostname=host
            )
        except BaseException:
            transport.abort()
            raise
        if secure is None:
            raise ConnectionError("the connection was closed")
        protocol.connection_made(secure)


def _why(error: Exception) -> str:
    """Returns the reason. asyncio's text has the address, and a number in place of the reason."""
    if not isinstance(error, OSError) or isinstance(error, (ssl.SSLError, socket.gaierror)):
        return str(error)
    return os.strerror(error.errno) if error.errno else str(error)
