"""Writes a part of a response under uvicorn in the step that has made it.

ASGI's `send` may wait, so only a task can call it: for each event of a stream, that would be a step
of a task, and a turn of the loop before it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generation.asgi.body import Send
    from generation.timing import FairTimeout

_SERVER = "uvicorn.protocols.http.httptools_impl"
_USED = ("chunked_encoding", "disconnected", "flow", "response_complete", "transport")


class Sink:
    """Sends events in the step that brings them, while the stream's task waits for more.

    `cycle` is uvicorn's object for the response, and `limit` how long that task waits: the event
    after this one may take `silence_s`.
    """

    def __init__(self, cycle: Any, limit: FairTimeout, silence_s: float) -> None:
        self._cycle = cycle
        self._limit = limit
        self._silence_s = silence_s
        self._clock = asyncio.get_running_loop().time

    @property
    def is_ready(self) -> bool:
        """False where the client has not taken what was sent before, or has left."""
        cycle = self._cycle
        return cycle.chunked_encoding is True and not (
            cycle.flow.write_paused or cycle.disconnected or cycle.response_complete
        )

    def write(self, events: bytes) -> None:
        """Call it while it is ready."""
        if events:  # an empty chunk would end the response
            self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(events), events))
            self._limit.move_to(self._clock() + self._silence_s)


def find_cycle(send: Send) -> Any:
    """Returns uvicorn's object for a response. None under another server, or a uvicorn that is
    different inside, and where a middleware has wrapped `send` to see or to change what is sent."""
    cycle = getattr(send, "__self__", None)
    if type(cycle).__module__ != _SERVER or not all(hasattr(cycle, name) for name in _USED):
        return None
    return cycle
