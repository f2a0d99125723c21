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
        tls = self._tls if url.scheme == "https" else None
        host, port = url.host, url.port or (443 if tls else 80)
        if proxy is None:
            await self._reach(connection, host, port, tls)
            return
        tls_of_proxy = self._tls if proxy.scheme == "https" else None
        if tls is None:
            await self._reach(connection, proxy.host, proxy.port, tls_of_proxy)
            return
        tunnel = Tunnel()
        await self._reach(tunnel, proxy.host, proxy.port, tls_of_proxy)
        try:
            await tunnel.open(host, port, proxy)
            transport = await asyncio.get_running_loop().start_tls(
                tunnel.transport, connection, tls, server_hostname=host
            )
        except BaseException:
            tunnel.transport.abort()
            raise
        if transport is None:
            raise ConnectionError("the connection was closed")
        connection.connection_made(transport)

    async def _reach(
        self, protocol: asyncio.Protocol, host: str, port: int, tls: ssl.SSLContext | None
    ) -> None:
        addresses = await self._addresses.find(host, port)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: protocol, sock=sock, ssl=tls, server_hostname=host if tls else None
            )
        except BaseException:
            sock.close()
            raise


def _why(error: Exception) -> str:
    """asyncio says that a connection failed, and of why only the number."""
    if not isinstance(error, OSError) or isinstance(error, (ssl.SSLError, socket.gaierror)):
        return str(error)
    return os.strerror(error.errno) if error.errno else str(error)
