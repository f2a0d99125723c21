"""A stream on its way from the provider to whoever reads it: one writer, any number of readers.

The events of the whole answer are kept until the generation ends, because its row needs them, and
because a reader that comes late, or comes back, reads from any position. So memory is bounded by
LLM_MAX_REPLY_BYTES. The writer waits for the slowest reader; a reader that takes too long is
closed by its own time limit and counts as gone.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from generation.events import TextDelta, ThinkingDelta, ToolArguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.events import Event

LAG_BYTES = 65_536  # of what a reader has not taken yet; beyond that, the provider is not read

_SIZED = (TextDelta, ThinkingDelta, ToolArguments)


class Relay:
    """Belongs to one generation, whose task writes and closes it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.first_at: float | None = None  # time.monotonic() at the first content
        self.is_closed = False
        self.size = 0  # characters of content so far
        self._readers: set[Reader] = set()
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, events: Sequence[Event]) -> None:
        """Add events. The first that are put commit the answer: no retry may follow.

        Waits while a reader lags. May be cancelled; the events have been added then.
        """
        if self.first_at is None:
            self.first_at = monotonic()
        self.events.extend(events)
        for event in events:
            if isinstance(event, _SIZED):
                self.size += len(event.text)
        self._wake_readers()
        while any(self.size - reader.taken > LAG_BYTES for reader in self._readers):
            self._room = self._room or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def close(self) -> None:
        """Nothing follows: the generation has ended, and its row is safe."""
        self.is_closed = True
        self._wake_readers()

    @property
    def has_readers(self) -> bool:
        return bool(self._readers)

    def reader(self) -> Reader:
        """Returns a reader from the first event on."""
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def _wake_readers(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)

    def _wake_writer(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    async def _wait(self) -> None:
        self._news = self._news or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)


class Reader:
    """One reader's position in a stream. Close it when the reader leaves."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._position = 0  # the next event's
        self._read_size = 0
        self.taken = 0  # characters that the reader is done with

    async def read(self) -> Sequence[Event]:
        """Returns the events since the last call, at least one; none where the stream has ended.

        A further call says that the reader is done with those of the last one. May be cancelled.
        """
        relay = self._relay
        if self.taken != self._read_size:
            self.taken = self._read_size
            relay._wake_writer()
        while self._position == len(relay.events) and not relay.is_closed:
            await relay._wait()
        events = relay.events[self._position :]
        self._position += len(events)
        self._read_size = relay.size
        return events

    def close(self) -> None:
        self._relay._readers.discard(self)
        self._relay._wake_writer()
