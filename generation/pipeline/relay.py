"""A stream on its way from the provider to its readers: one writer, any number of readers.

The whole answer is kept until the generation ends, because its row needs it, and because a reader
that comes late, or comes back, reads from any position. So memory is bounded by
LLM_MAX_REPLY_BYTES. What all readers have is kept in few events: an object for each word of each
stream would stop the process for as long as the cycle collector looks at them. The writer waits for
the slowest reader; one that takes too long is closed by its own time limit.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from generation.events import PIECES, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from generation.events import Event

LAG_CHARS = 65_536  # that a reader may lag; beyond that, the provider is not read
JOINED_AT = 16  # events: some 0.1 µs for each, and few wait to be joined


class Relay:
    """Belongs to one generation, whose task writes and closes it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.first_at: float | None = None  # time.monotonic() at the first content
        self.is_closed = False
        self.size = 0  # characters of content so far
        self.readers: set[Reader] = set()
        self.end = 0  # of the events that readers may have
        self._joined = 0  # of the events: the place of the first that may still be joined
        self._room = asyncio.Event()  # set whenever a reader may have caught up

    def put(self, events: list[Event]) -> None:
        """Hand on what is new at the end of an answer's events: the same list at each call, which
        the relay shortens. The first call commits the answer: no retry may follow."""
        if self.first_at is None:
            self.first_at = monotonic()
            self.events = events
        for event in events[self.end :]:
            if isinstance(event, PIECES):
                self.size += len(event.text)
        self.end = len(events)
        for reader in self.readers:
            reader.wake()
        if self.end - self._joined > JOINED_AT:
            self._join()

    def _join(self) -> None:
        """Keep what all readers have in fewer events. The last may be joined with those to come."""
        begin = self._joined
        taken = min((reader.position for reader in self.readers), default=self.end)
        if taken - begin <= JOINED_AT:
            return
        self.events[begin:taken] = fewer = joined(self.events[begin:taken])
        self._joined += len(fewer) - 1
        gone = taken - begin - len(fewer)
        self.end -= gone
        for reader in self.readers:
            reader.position -= gone

    @property
    def has_room(self) -> bool:
        """Whether no reader lags so far that the writer has to wait for it."""
        return self.size <= LAG_CHARS or all(
            self.size - reader.taken <= LAG_CHARS for reader in self.readers
        )

    async def room(self) -> None:
        """Wait while a reader lags. May be cancelled."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """Nothing follows: the generation has ended, and its row is safe."""
        self.is_closed = True
        for reader in self.readers:
            reader.wake()

    def reader(self) -> Reader:
        """Returns a reader from the first event on."""
        reader = Reader(self)
        self.readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        self.readers.discard(reader)
        self._room.set()

    def note_taken(self) -> None:
        self._room.set()


class Reader:
    """One reader's position in a stream. Close it when the reader leaves."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.position = 0  # the next event's
        self._read_size = 0
        self._news: asyncio.Future[None] | None = None  # while it waits
        self.taken = 0  # characters that the reader is done with
        # Called in the writer's step when events come while `read()` waits, so that no turn of the
        # loop lies between. Returns False if `read()` has to return them.
        self.on_news: Callable[[], bool] | None = None

    async def read(self) -> Sequence[Event]:
        """Returns the events since the last call, at least one; none where the stream has ended.

        A further call says that the reader is done with those of the last one. May be cancelled.
        """
        relay = self._relay
        if self.taken != self._read_size:
            self.taken = self._read_size
            relay.note_taken()
        while self.position == relay.end and not relay.is_closed:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        events = relay.events[self.position : relay.end]
        self.position = relay.end
        self._read_size = relay.size
        return events

    def take(self) -> Sequence[Event]:
        """Returns the events since the last call. The reader is done with them at once."""
        relay = self._relay
        events = relay.events[self.position : relay.end]
        self.position = relay.end
        self.taken = self._read_size = relay.size
        return events

    def wake(self) -> None:
        news = self._news
        if news is None or news.done():
            return
        try:
            if self.on_news is not None and not self._relay.is_closed and self.on_news():
                return
        except Exception as bug:  # noqa: BLE001  # the reader's, and not the writer's
            news.set_exception(bug)
        else:
            news.set_result(None)

    def close(self) -> None:
        self.on_news = None  # it holds us
        self._relay.leave(self)
