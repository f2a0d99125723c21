"""A tunnel through a proxy: CONNECT, and what the proxy answers."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from generation.llm.transport import proxies

_MAX_HEAD_BYTES = 65_536
_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d\d\d)\b")


class Tunnel(asyncio.Protocol):
    """Reads until the tunnel is open. Then TLS takes over its `transport`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._head = bytearray()  # and what has come with its end
        self._is_over = asyncio.Event()  # the head has ended, or never will

    async def open(self, host: str, port: int, proxy: proxies.Proxy) -> None:
        """Raises `OSError` if the proxy refuses; `httpx.ProxyError` if it demands credentials."""
        self.transport.write(proxy.connect_request(host, port))
        await self._is_over.wait()
        head, end, rest = self._head.partition(_END)
        if not end:
            is_too_long = len(head) > _MAX_HEAD_BYTES
            raise ConnectionError(
                "its answer is too long" if is_too_long else "it closed the connection"
            )
        found = _STATUS.match(head)
        status = int(found[1]) if found else 0
        if status == proxies.AUTHENTICATION_REQUIRED:
            raise proxies.refusal(proxy)
        is_open = status // 100 == 2  # success
        if not status or (is_open and rest):
            raise ConnectionError("its answer can't be read")
        if not is_open:
            raise ConnectionError(f"it answers {status}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._is_over.is_set():
            return
        self._head += data
        if _END in self._head or len(self._head) > _MAX_HEAD_BYTES:
            self._is_over.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._is_over.set()
