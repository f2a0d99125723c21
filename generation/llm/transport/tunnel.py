"""A tunnel through a proxy: CONNECT, and what the proxy answers."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from generation.llm.transport import proxies

_MAX_HEAD_BYTES = 65_536
_STATUS = re.compile(rb"HTTP/1\.[01] (\d\d\d)\b")


class Tunnel(asyncio.Protocol):
    """Reads until the tunnel is open. Then TLS takes over its `transport`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._head = bytearray()

    async def open(self, host: str, port: int, proxy: proxies.Proxy) -> None:
        """Raises `OSError` if the proxy refuses; `httpx.ProxyError` if it demands credentials."""
        self.transport.write(proxy.connect_request(host, port))
        answer = await self._answer
        status = _STATUS.match(answer)
        if status is None or not answer.endswith(b"\r\n\r\n"):
            raise ConnectionError("its answer can't be read")
        if int(status[1]) == proxies.AUTHENTICATION_REQUIRED:
            raise proxies.refusal(proxy)
        if not status[1].startswith(b"2"):
            raise ConnectionError(f"it answers {status[1].decode()}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._answer.done():
            return
        if b"\r\n\r\n" in self._head:
            self._answer.set_result(bytes(self._head))
        elif len(self._head) > _MAX_HEAD_BYTES:
            self._answer.set_exception(ConnectionError("its answer is too long"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(error or ConnectionError("it closed the connection"))
