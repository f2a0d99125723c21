"""One connection to a server: one request at a time, in HTTP/1.1, in the loop's own thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httpx

from generation.llm.transport import idle, request_head
from generation.llm.transport.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.llm.transport.request_head import Via

_LARGE_BYTES = 65_536  # of a request's body: more than the kernel may take at once
_FIRST_REFUSAL = 400  # a status


class Connection(asyncio.Protocol):
    """`on_idle` is called when it may be used again, `on_closed` when it may not."""

    def __init__(
        self,
        on_idle: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self._on_idle, self._on_closed = on_idle, on_closed
        self._transport: asyncio.Transport | None = None  # None: it is not open
        self._reply: Reply | None = None  # None: nothing was asked
        self._timer: asyncio.TimerHandle | None = None  # while it is idle
        self._is_large = False  # the request that was asked last

    def begin(self, request: httpx.Request, via: Via) -> Reply:
        """Send the request. Raises `httpx.LocalProtocolError` if it can't be written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reply = self._reply = Reply(self)
        if self._transport is None or self._transport.is_closing():
            reply.fail(httpx.ReadError, "the connection was closed before the request was sent")
            return reply
        try:
            self._transport.writelines(request_head.encode(request, via))
        except httpx.LocalProtocolError:
            self._reply = None
            self.abort()
            raise
        self._is_large = len(request.read()) > _LARGE_BYTES
        return reply

    def end_reply(self, *, may_stay: bool) -> None:
        reply, self._reply = self._reply, None
        transport = self._transport
        if transport is None:
            return
        if may_stay and not transport.is_closing() and not self._may_be_sending(transport, reply):
            self._timer = asyncio.get_running_loop().call_later(idle.IDLE_S, self.abort)
            transport.resume_reading()  # so that we notice if it is closed
            self._on_idle(self)
        else:
            self.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            # Once what called us has returned, since asyncio's TLS goes on with the connection.
            asyncio.get_running_loop().call_soon(self._transport.abort)
            self._close()

    # --- what the loop calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self.abort()  # nothing was asked
        else:
            self._reply.feed(data)

    def eof_received(self) -> None:
        if self._reply is not None:
            self._reply.end_of_file(is_certain=_is_certain(self._transport))
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        reply, self._reply = self._reply, None
        self._close()
        if reply is not None:
            if error is None:
                reply.end_of_file(is_certain=False)
            else:
                is_writing = isinstance(error, BrokenPipeError)
                reply.fail(httpx.WriteError if is_writing else httpx.ReadError, str(error))

    def _may_be_sending(self, transport: asyncio.Transport, reply: Reply | None) -> bool:
        """A reply that comes before the end of its request leaves the rest of it in the way."""
        if transport.get_write_buffer_size():
            return True
        # What TLS has encrypted waits in a buffer that nobody can ask.
        is_tls = transport.get_extra_info("ssl_object") is not None
        return is_tls and self._is_large and reply is not None and reply.status >= _FIRST_REFUSAL

    def _close(self) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_closed(self)


def _is_certain(transport: asyncio.Transport | None) -> bool:
    """Whether the other side itself has ended what it sends. Under TLS, it says so."""
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except OSError:  # it wants more
        return False
