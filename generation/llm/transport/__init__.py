"""The one place that chooses how a request is sent, behind httpx's types."""

from __future__ import annotations

import httpx

from generation.llm.transport.streaming import StreamingTransport
from generation.llm.transport.whole import WholeTransport

STREAMED = "streamed"  # a request's extension: true if its reply is read while it comes


class Transport(httpx.AsyncBaseTransport):
    """Sends what will be answered by a stream in the loop's own thread, and the rest through
    pyqwest.

    It takes an `httpx.Request` directly, because `httpx.AsyncClient` would cost more than the call.
    """

    def __init__(self, *, connect_timeout: float) -> None:
        self._whole = WholeTransport(connect_timeout=connect_timeout)
        self._streaming = StreamingTransport(connect_timeout=connect_timeout)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._streaming if request.extensions.get(STREAMED) else self._whole
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._streaming.aclose()
        await self._whole.aclose()
