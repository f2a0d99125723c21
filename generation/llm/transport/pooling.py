"""The transport: it keeps connections, and finds one for each call."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx

from generation.llm.transport import idle, proxies
from generation.llm.transport.connecting import Connector
from generation.llm.transport.connection import Connection
from generation.llm.transport.request_head import DIRECT, Via
from generation.telemetry import metrics

if TYPE_CHECKING:
    from generation.llm.transport.reply import Reply


# To one server at once. Each handshake takes the loop half a millisecond, so those of thousands
# would all outlast the limit of time that each has.
_MAX_CONNECTING = 500


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without redirects, cookies or decompression.

    It takes an `httpx.Request` directly, because `httpx.AsyncClient` would cost more than the call.
    HTTP/2 is off on purpose: all calls would share one connection and queue for its limited
    number of concurrent streams.

    The stream of a response is a `Body`. Apart from connecting, time limits are up to the caller:
    cancelling the await closes the connection. `authorities` are trusted beside the system's, as
    PEM.
    """

    def __init__(self, *, connect_timeout: float, authorities: str | None = None) -> None:
        self._connector = Connector(connect_timeout, authorities)
        self._origins: dict[tuple[bytes, bytes, int | None], _Origin] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = self._origin(request.url)
        connection = origin.take()
        if connection is not None:
            started = time.monotonic()
            reply = connection.begin(request, origin.via)
            try:
                return await _response(reply, origin)
            except httpx.TransportError:
                if reply.has_begun or time.monotonic() - started > idle.STALE_WITHIN_S:
                    raise
            # The connection was stale. The provider did not fail, so this is no attempt of ours.
            metrics.LLM_STALE_CONNECTIONS.inc()
        connection = origin.connection()
        async with origin.connecting:
            await self._connector.connect(connection, request.url, origin.proxy)
        return await _response(connection.begin(request, origin.via), origin)

    async def aclose(self) -> None:
        for origin in self._origins.values():
            origin.close()
        await self._connector.aclose()

    def _origin(self, url: httpx.URL) -> _Origin:
        key = url.raw_scheme, url.raw_host, url.port
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(url)
        return origin


class _Origin:
    """A server, and the connections to it that are idle."""

    def __init__(self, url: httpx.URL) -> None:
        self.proxy = proxies.find(url)
        self.via = DIRECT
        if self.proxy is not None and url.scheme == "http":
            self.via = Via(is_absolute=True, authorization=self.proxy.authorization)
        self.connecting = asyncio.Semaphore(_MAX_CONNECTING)
        self._idle: dict[Connection, None] = {}  # the latest is the last
        self._is_closed = False

    def connection(self) -> Connection:
        return Connection(self._put, self._drop)

    def take(self) -> Connection | None:
        return self._idle.popitem()[0] if self._idle else None

    def close(self) -> None:
        self._is_closed = True
        for connection in list(self._idle):
            connection.abort()

    def _put(self, connection: Connection) -> None:
        if self._is_closed or len(self._idle) == idle.MAX_IDLE:
            connection.abort()
        else:
            self._idle[connection] = None

    def _drop(self, connection: Connection) -> None:
        self._idle.pop(connection, None)


async def _response(reply: Reply, origin: _Origin) -> httpx.Response:
    await reply.head()
    if reply.status == proxies.AUTHENTICATION_REQUIRED:
        await reply.aclose()
        raise proxies.refusal(origin.proxy)
    response = httpx.Response(reply.status, headers=reply.headers, stream=reply)
    response.headers.encoding = "iso-8859-1"  # which any bytes are
    return response
