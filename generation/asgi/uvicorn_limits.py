"""What uvicorn lacks, added to its protocol: it reads a head before any application may judge it.

- A head, or the trailers of a body, of any size: uvicorn joins its parts as they arrive, and 150 MB
  in one header stop the loop for 7 s.
- A refusal that is closed behind at once, with bytes unread: the kernel resets the connection, and
  the client never reads its 400.
- Trailers become headers of the request, e.g. an X-Forwarded-For that no proxy has checked.
- A client that closes its sending side, and waits for its answer, gets none.
- A client that reads nothing is noticed late: the kernel first takes up to 4 MB for it, which is
  more than most answers are.
- An application can't close a connection in the middle of an answer without an error in the log.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from generation.asgi.head import MAX_HEADER_BYTES, MAX_TARGET_BYTES
from generation.asgi.problems import CONTENT_TYPE, render_problem
from generation.errors import BadRequest, HeadersTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.errors import StaccatoError

# Far above what `Head.check` refuses with the request's own id, once the head has ended.
MAX_UNPARSED_BYTES = 4 * (MAX_HEADER_BYTES + MAX_TARGET_BYTES)
FRAMING_PER_BODY_BYTE = 8  # a chunk of one byte arrives as six
UNSENT_BYTES = 65_536  # that the kernel takes for a connection: as much as uvicorn buffers itself
LINGER_S = 2.0  # how long the rest is read and dropped, so that the sender gets the refusal
# A client that has left answers what is sent to it with a reset; one that waits takes it.
PROBES_AFTER_S = (0.0, 0.1, 1.0, 5.0)
ABORT = "staccato.abort"  # key in the ASGI scope: closes the connection at once
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def apply() -> None:
    """To the protocol class of this process, also where uvicorn has chosen it already."""
    try:
        from uvicorn.protocols.http.httptools_impl import (
            HttpToolsProtocol,
        )  # it need not be installed
    except ImportError:  # another server, or h11, which has a bound of its own
        return
    if not hasattr(HttpToolsProtocol, "unparsed_bytes"):
        for name, method in _methods(HttpToolsProtocol).items():
            setattr(HttpToolsProtocol, name, method)


def _methods(base: Any) -> dict[str, Any]:
    """uvicorn's methods, each with what it lacks."""
    begin_connection: Callable[[Any, Any], None] = base.connection_made
    feed: Callable[[Any, bytes], None] = base.data_received
    begin: Callable[[Any], None] = base.on_message_begin
    complete_head: Callable[[Any], None] = base.on_headers_complete
    take_body: Callable[[Any, bytes], None] = base.on_body
    send_400: Callable[[Any, str], None] = base.send_400_response

    def connection_made(self: Any, transport: Any) -> None:
        _bound_unsent(transport.get_extra_info("socket"))
        begin_connection(self, transport)

    def data_received(self: Any, data: bytes) -> None:
        if self.is_refused:
            return
        self.unparsed_bytes += len(data)
        feed(self, data)
        _check_head(self)

    def on_message_begin(self: Any) -> None:
        self.unparsed_bytes = 0  # without the rest of this read, which is bounded as well
        begin(self)

    def on_headers_complete(self: Any) -> None:
        self.unparsed_bytes = 0
        complete_head(self)
        self.scope["headers"] = list(self.headers)  # trailers are appended to the other list
        self.scope[ABORT] = self.transport.abort

    def on_body(self: Any, body: bytes) -> None:
        self.unparsed_bytes -= FRAMING_PER_BODY_BYTE * len(body)
        take_body(self, body)

    def send_400_response(self: Any, msg: str) -> None:
        if _is_answer_due(self):
            _refuse(self, BadRequest(msg))
        else:
            send_400(self, msg)

    return {
        "unparsed_bytes": 0,
        "is_refused": False,
        **{
            method.__name__: method
            for method in (
                connection_made,
                data_received,
                on_message_begin,
                on_headers_complete,
                on_body,
                send_400_response,
            )
        },
        "eof_received": _eof_received,
    }


def _bound_unsent(connection: socket.socket | None) -> None:
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # AttributeError: neither Linux nor macOS. OSError: macOS, where the client has already left.
    with contextlib.suppress(AttributeError, OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _eof_received(protocol: Any) -> bool:
    """Whether the connection stays open, because a client may still wait for its answer."""
    cycle = protocol.cycle
    waits = (
        cycle is not None
        and not (cycle.more_body or cycle.response_started)
        and not (protocol.pipeline or protocol.is_refused)
        and protocol.scope["http_version"] == "1.1"
        and protocol.scheme == "http"  # asyncio closes TLS whatever we say
    )
    if waits:
        cycle.keep_alive = False
        for delay in PROBES_AFTER_S:
            protocol.loop.call_later(delay, _probe, protocol, cycle)
    return waits


def _check_head(protocol: Any) -> None:
    is_over = protocol.is_refused or protocol.transport.is_closing()
    if is_over or protocol.unparsed_bytes <= MAX_UNPARSED_BYTES:
        return
    if _is_answer_due(protocol):
        error = HeadersTooLarge(f"the head is larger than {MAX_UNPARSED_BYTES} bytes")
        _refuse(protocol, error)
    else:
        protocol.is_refused = True
        protocol.transport.abort()


def _is_answer_due(protocol: Any) -> bool:
    """Whether no earlier request of the connection still has its response to come."""
    return protocol.cycle is None or protocol.cycle.response_complete


def _refuse(protocol: Any, error: StaccatoError) -> None:
    """Answer, say that nothing follows, and read on for a moment: closing a connection with unread
    data resets it, and the refusal may be lost."""
    protocol.is_refused = True
    transport = protocol.transport
    transport.write(_refusal(error))
    if transport.can_write_eof():  # TLS can't
        transport.write_eof()
    protocol.loop.call_later(LINGER_S, transport.close)


def _refusal(error: StaccatoError) -> bytes:
    response = render_problem(error)
    return (
        b"HTTP/1.1 %d %b\r\nconnection: close\r\n"
        b"content-type: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (
            response.status_code,
            response.reason_phrase.encode(),
            CONTENT_TYPE.encode(),
            len(response.content),
            response.content,
        )
    )


def _probe(protocol: Any, cycle: Any) -> None:
    if not (cycle.response_started or protocol.transport.is_closing()):
        protocol.transport.write(_CONTINUE)
