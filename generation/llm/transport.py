"""The one place that chooses the HTTP transport: pyqwest (Rust's reqwest) behind httpx's types.

It takes an `httpx.Request` directly, because `httpx.AsyncClient` would cost more than the call.
Apart from connecting, time limits are up to the caller: cancelling the await closes the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pyqwest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Below the idle limit of common load balancers (60 s), so that the other side rarely closes a
# connection just when we use it again.
_IDLE_S = 30.0
_MAX_IDLE = 10_000
_THREAD_EXIT_S = 0.05

# pyqwest writes these itself.
_PYQWEST_HEADERS = frozenset({b"host", b"content-length"})


async def close(pool: pyqwest.HTTPTransport) -> None:
    """Close the pool, and wait until its thread is idle.

    The thread enters the interpreter once more after each call. If the process ends here, it may
    find the interpreter half finalized and abort the process (SIGABRT): one time in ten on a busy
    machine right after a call, never in 240 tries with 0.02 s.
    """
    await pool.aclose()
    await asyncio.sleep(_THREAD_EXIT_S)


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without redirects, cookies or decompression.

    HTTP/2 is off on purpose: all calls would share one connection and queue for its limited
    number of concurrent streams.
    """

    def __init__(self, *, connect_timeout: float) -> None:
        self._pool = pyqwest.HTTPTransport(
            tls_include_system_certs=True,
            http_version=pyqwest.HTTPVersion.HTTP1,
            connect_timeout=connect_timeout,
            pool_idle_timeout=_IDLE_S,
            pool_max_idle_per_host=_MAX_IDLE,
            follow_redirects=False,
            enable_gzip=False,
            enable_brotli=False,
            enable_zstd=False,
            enable_otel=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._pool.execute(_to_pyqwest(request))
        except Exception as error:
            raise to_httpx_error(error) from error
        answer = httpx.Response(
            response.status,
            headers=list(response.headers.items()),
            stream=_Body(response),
        )
        answer.headers.encoding = "utf-8"  # else the first lookup tries several
        return answer

    async def aclose(self) -> None:
        await close(self._pool)


def _to_pyqwest(request: httpx.Request) -> pyqwest.Request:
    """In a frame of its own, gone when the call fails: error trackers show local variables, and
    these hold an API key.
    """
    headers = pyqwest.Headers(
        [
            (name.decode("ascii"), value.decode("ascii"))
            for name, value in request.headers.raw
            if name.lower() not in _PYQWEST_HEADERS
        ]
    )
    return pyqwest.Request(request.method, str(request.url), headers, request.read())


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: pyqwest.Response) -> None:
        self._response = response
        self._chunks = response.content
        self._is_exhausted = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return bytes(await anext(self._chunks))
        except StopAsyncIteration:
            self._is_exhausted = True
            raise
        except Exception as error:
            raise to_httpx_error(error) from error

    async def aclose(self) -> None:
        if not self._is_exhausted:  # else the connection is back in the pool already
            await self._response.aclose()


def to_httpx_error(error: Exception) -> httpx.TransportError:
    for kind, httpx_kind in _HTTPX_ERRORS:
        if isinstance(error, kind):
            return httpx_kind(str(error))
    return httpx.TransportError(str(error))


_HTTPX_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (pyqwest.ConnectTimeout, httpx.ConnectTimeout),  # before its bases
    (ConnectionError, httpx.ConnectError),
    (TimeoutError, httpx.ReadTimeout),
    (pyqwest.RemoteProtocolError, httpx.RemoteProtocolError),
    (pyqwest.ReadError, httpx.ReadError),
    (pyqwest.WriteError, httpx.WriteError),
    (ValueError, httpx.LocalProtocolError),
)
