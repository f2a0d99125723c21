"""The one place that chooses the HTTP transport: pyqwest (Rust's reqwest) behind httpx's types.

It is fed with `httpx.Request` directly; `httpx.AsyncClient` would cost more than the call.
Time limits other than connecting are the caller's: cancelling the await closes the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pyqwest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Below the idle limit of common load balancers (60 s), so that a connection is seldom
# closed by the other side just when it is used again.
_IDLE_S = 30.0
_MAX_IDLE = 10_000
_REST_S = 0.05

# pyqwest writes these itself.
_OWN_HEADERS = frozenset({b"host", b"content-length"})


async def close(pool: pyqwest.HTTPTransport) -> None:
    """Close it, and let its thread come to rest.

    That thread has a last word with the interpreter after each call. Were this the end of the
    process, it might find the interpreter half gone, and end it by SIGABRT: one time in ten on a
    busy machine right after a call, never in 240 at 0.02 s.
    """
    await pool.aclose()
    await asyncio.sleep(_REST_S)


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without redirects, cookies or decompression.

    HTTP/2 is left out on purpose: all calls would share one connection and queue behind its
    limit of concurrent streams.
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
            response = await self._pool.execute(_convert(request))
        except Exception as error:
            raise _translate(error) from error
        answer = httpx.Response(
            response.status,
            headers=list(response.headers.items()),
            stream=_Body(response),
        )
        answer.headers.encoding = "utf-8"  # otherwise the first lookup tries them all
        return answer

    async def aclose(self) -> None:
        await close(self._pool)


def _convert(request: httpx.Request) -> pyqwest.Request:
    """In a frame of its own: an error tracker would show the headers as a local."""
    headers = pyqwest.Headers(
        [
            (name.decode("ascii"), value.decode("ascii"))
            for name, value in request.headers.raw
            if name.lower() not in _OWN_HEADERS
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
            raise _translate(error) from error

    async def aclose(self) -> None:
        if not self._is_exhausted:  # otherwise the connection is back in the pool already
            await self._response.aclose()


def _translate(error: Exception) -> httpx.TransportError:
    for kind, translation in _TRANSLATIONS:
        if isinstance(error, kind):
            return translation(str(error))
    return httpx.TransportError(str(error))


_TRANSLATIONS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (pyqwest.ConnectTimeout, httpx.ConnectTimeout),  # before its bases
    (ConnectionError, httpx.ConnectError),
    (TimeoutError, httpx.ReadTimeout),
    (pyqwest.RemoteProtocolError, httpx.RemoteProtocolError),
    (pyqwest.ReadError, httpx.ReadError),
    (pyqwest.WriteError, httpx.WriteError),
    (ValueError, httpx.LocalProtocolError),
)
