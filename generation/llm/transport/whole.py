"""The transport of whole answers: pyqwest (Rust's reqwest) behind httpx's types.

Apart from connecting, time limits are up to the caller: cancelling the await closes the connection.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from typing import TYPE_CHECKING

import httpx
import pyqwest

from generation.llm.transport import idle, proxies
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_THREAD_EXIT_S = 0.05
_BROKEN = re.compile("closed|reset|broken pipe|close_notify|aborted", re.IGNORECASE)

# pyqwest writes these itself.
_PYQWEST_HEADERS = frozenset({b"host", b"content-length"})


async def close(*pools: pyqwest.HTTPTransport) -> None:
    """Close the pools, and wait until their thread is idle.

    The thread enters the interpreter once more after each call. If the process ends here, it may
    find the interpreter half finalized and abort the process (SIGABRT): one time in ten on a busy
    machine right after a call, never in 240 tries with 0.02 s.
    """
    for pool in pools:
        await pool.aclose()
    await asyncio.sleep(_THREAD_EXIT_S)


class WholeTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without redirects, cookies or decompression.

    HTTP/2 is off on purpose: all calls would share one connection and queue for its limited
    number of concurrent streams.
    """

    def __init__(self, *, connect_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._pools: dict[tuple[bool, int], pyqwest.HTTPTransport] = {}
        self._origins: dict[tuple[bytes, bytes, int | None], _Origin] = {}
        for is_direct in (False, True):  # now: the first takes 0.1 s to read the certificates
            self._pool(is_direct=is_direct, max_idle=idle.MAX_IDLE)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = self._origin(request.url)
        outgoing = _to_pyqwest(request)
        started = time.monotonic()
        is_reused = origin.take(started)
        give_back: Callable[[], None] | None = origin.give_back
        try:
            response = await origin.pool.execute(outgoing)
        except Exception as error:
            if not (is_reused and _found_closed(error, started)):
                raise origin.to_httpx_error(error) from error
            # The connection was stale. The provider did not fail, so this is no attempt of ours.
            metrics.LLM_STALE_CONNECTIONS.inc()
            response = await self._repeat(origin, outgoing)
            give_back = None  # its connection is closed
        if response.status == proxies.AUTHENTICATION_REQUIRED:
            await response.aclose()
            raise origin.proxy_refusal()
        answer = httpx.Response(
            response.status,
            headers=list(response.headers.items()),
            stream=_Body(response, give_back),
        )
        answer.headers.encoding = "utf-8"  # else the first lookup tries several
        return answer

    async def _repeat(self, origin: _Origin, outgoing: pyqwest.Request) -> pyqwest.Response:
        """On a fresh connection: where the provider has restarted, all idle ones are stale."""
        try:
            return await self._pool(is_direct=origin.is_direct, max_idle=0).execute(outgoing)
        except Exception as error:
            raise origin.to_httpx_error(error) from error

    async def aclose(self) -> None:
        await close(*self._pools.values())

    def _origin(self, url: httpx.URL) -> _Origin:
        key = url.raw_scheme, url.raw_host, url.port
        origin = self._origins.get(key)
        if origin is None:
            is_direct = proxies.is_loopback(url.host)
            pool = self._pool(is_direct=is_direct, max_idle=idle.MAX_IDLE)
            origin = self._origins[key] = _Origin(url, pool, is_direct=is_direct)
        return origin

    def _pool(self, *, is_direct: bool, max_idle: int) -> pyqwest.HTTPTransport:
        """Those without idle connections are made when they are first needed."""
        pool = self._pools.get((is_direct, max_idle))
        if pool is None:
            pool = self._pools[is_direct, max_idle] = _new_pool(
                self._connect_timeout, is_direct=is_direct, max_idle=max_idle
            )
        return pool


def _new_pool(connect_timeout: float, *, is_direct: bool, max_idle: int) -> pyqwest.HTTPTransport:
    def make(*, system_certificates: bool) -> pyqwest.HTTPTransport:
        return pyqwest.HTTPTransport(
            tls_include_system_certs=system_certificates,
            http_version=pyqwest.HTTPVersion.HTTP1,
            proxy=proxies.NONE if is_direct else None,
            connect_timeout=connect_timeout,
            pool_idle_timeout=idle.IDLE_S,
            pool_max_idle_per_host=max_idle,
            follow_redirects=False,
            enable_gzip=False,
            enable_brotli=False,
            enable_zstd=False,
            enable_otel=False,
        )

    try:
        return make(system_certificates=True)
    except RuntimeError:  # there are none; then no https connection can be made
        return make(system_certificates=False)


def has_certificates() -> bool:
    """Whether this machine has a certificate authority that an https server could be trusted by."""
    try:
        pyqwest.HTTPTransport(tls_include_system_certs=True)
    except RuntimeError:
        return False
    return True


class _Origin:
    """A server, and the connections to it that are probably idle.

    pyqwest does not say whether it used a connection again. It does whenever one is idle, the
    latest first, so we know from what was returned and taken. Where we are wrong, a call that
    failed on a fresh connection is repeated for free, at most once for each call that succeeded.
    """

    def __init__(self, url: httpx.URL, pool: pyqwest.HTTPTransport, *, is_direct: bool) -> None:
        self.pool = pool
        self.is_direct = is_direct
        self._url = url
        self._idle: deque[float] = deque(maxlen=idle.MAX_IDLE)  # when each was returned

    def take(self, now: float) -> bool:
        """Whether the next call uses an idle connection."""
        returned = self._idle
        while returned and returned[0] < now - idle.IDLE_S:
            returned.popleft()
        if not returned:
            return False
        returned.pop()
        return True

    def give_back(self) -> None:
        self._idle.append(time.monotonic())

    def proxy_refusal(self) -> httpx.ProxyError:
        return proxies.refusal(self._proxy)

    def to_httpx_error(self, error: Exception) -> httpx.TransportError:
        text = str(error)
        if "tunnel error" in text and not self.is_direct:
            if "authorization required" in text:
                return self.proxy_refusal()
            return httpx.ConnectError(f"{self._proxy or 'a proxy'} made no connection: {text}")
        return to_httpx_error(error)

    @property
    def _proxy(self) -> proxies.Proxy | None:
        return proxies.find(self._url.scheme, self._url.host)


def _found_closed(error: Exception, started: float) -> bool:
    """Whether the connection was closed before anything was received, and was so at once."""
    if isinstance(error, ConnectionError | TimeoutError):  # of a new connection
        return False
    return time.monotonic() - started < idle.STALE_WITHIN_S and bool(_BROKEN.search(str(error)))


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
    def __init__(self, response: pyqwest.Response, give_back: Callable[[], None] | None) -> None:
        self._response = response
        self._give_back = give_back
        self._chunks = response.content
        self._is_exhausted = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return bytes(await anext(self._chunks))
        except StopAsyncIteration:
            if not self._is_exhausted:
                self._is_exhausted = True
                if self._give_back and self._response.headers.get("connection") != "close":
                    self._give_back()
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
