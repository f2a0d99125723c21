"""Writes a part of a response under uvicorn in the step that has made it.

ASGI's `send` may wait, so only a task can call it: for each event of a stream, that would be a step
of a task, and a turn of the loop before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generation.asgi.body import Send

_SERVER = "uvicorn.protocols.http.httptools_impl"
_USED = ("chunked_encoding", "disconnected", "flow", "response_complete", "transport")


class OpenResponse:
    """A response of uvicorn's that is being sent."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle

    @property
    def is_ready(self) -> bool:
        """Whether `write()` may be called: the head has been sent, and `send` would not wait."""
        cycle = self._cycle
        return bool(
            cycle.chunked_encoding
            and not cycle.flow.write_paused
            and not cycle.disconnected
            and not cycle.response_complete
        )

    def write(self, body: bytes) -> None:
        """`body` must not be empty: that would end the response."""
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))


def open_response(send: Send) -> OpenResponse | None:
    """Returns None under another server, or a uvicorn that is different inside, and where a
    middleware has wrapped `send` to see or to change what is sent."""
    cycle = getattr(send, "__self__", None)
    if type(cycle).__module__ != _SERVER or not all(hasattr(cycle, name) for name in _USED):
        return None
    return OpenResponse(cycle)
