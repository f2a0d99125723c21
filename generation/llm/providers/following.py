"""Follows a streamed answer: from the bytes of its body to its readers, in one step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from generation.llm.providers import sse
from generation.llm.providers.parsing import UnusableReply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from generation.llm.providers.stream_reader import StreamReader
    from generation.llm.streamed_attempt import StreamedAttempt
    from generation.llm.transport.body import Body

HEAD_BYTES = 4200  # of a stream, for its raw reply
_TAIL_TIMEOUT_S = 2.0  # after the stop reason: for usage, and so that the connection is used again
_END_TIMEOUT_S = 0.1  # after the stream has said that it is over
# A word of four characters comes in 300 bytes of JSON, so what bounds the answer can't bound these.
_STREAM_BYTES_FACTOR = 64


class Follower:
    """Belongs to one stream. Its `head` is the first HEAD_BYTES of it."""

    def __init__(
        self, name: str, reader: StreamReader, attempt: StreamedAttempt, max_reply_bytes: int
    ) -> None:
        self.head = bytearray()
        self._name = name  # of the provider
        self._reader = reader
        self._attempt = attempt
        self._decoder = sse.Decoder(max_reply_bytes)
        self._max_reply_bytes = max_reply_bytes
        self._left = max_reply_bytes * _STREAM_BYTES_FACTOR

    async def follow(self, start: bytes, body: Body) -> None:
        """Read and hand on until the answer is whole. `start` has been read already.

        Raises `UnusableReply`, and `httpx.TransportError` if the body breaks off.
        """
        has_ended = self._take(start) and await body.pour(self._take)
        while not has_ended and not self._reader.is_stopped:
            await self._attempt.room()
            has_ended = await body.pour(self._take)
        if self._reader.is_stopped:
            await self._read_tail(body)
            self._attempt.put_news()  # what came beside the usage
        else:
            self._hand_on(self._decoder.end())
            self._reader.end()

    def _take(self, chunk: bytes) -> bool:
        """Returns whether more may come: the answer is not whole, and no reader lags."""
        reader, attempt = self._reader, self._attempt
        self._left -= len(chunk)
        if self._left < 0:
            raise self._too_large()
        if len(self.head) < HEAD_BYTES:
            self.head += chunk[:HEAD_BYTES]
        had_begun = reader.has_begun
        if not self._hand_on(self._decoder.feed(chunk)) and had_begun:
            attempt.note_life()
        return not reader.is_stopped and attempt.relay.has_room

    def _hand_on(self, events: Iterable[tuple[str, bytes]]) -> bool:
        """Returns whether they had anything of the answer. What comes before a fault is the
        caller's, too."""
        reader = self._reader
        try:
            for name, data in events:
                reader.take(name, data)
                if reader.size > self._max_reply_bytes:
                    raise self._too_large()
        finally:
            has_news = self._attempt.put_news()
        return has_news

    def _too_large(self) -> UnusableReply:
        return UnusableReply(f"{self._name} sent more than {self._max_reply_bytes} bytes")

    async def _read_tail(self, body: Body) -> None:
        """The answer is whole. Usage may follow; and a connection whose body was read to its end
        can be used again."""
        try:
            if body.has_ended or await self._pour_tail(body):
                for name, data in self._decoder.end():
                    self._reader.take(name, data)
        except (TimeoutError, httpx.HTTPError, UnusableReply):
            return  # none of this makes the answer less whole

    async def _pour_tail(self, body: Body) -> bool:
        """Returns whether the body has ended. Raises `TimeoutError` if it does not end soon."""
        self._attempt.note_stop(_TAIL_TIMEOUT_S)
        self._left = self._max_reply_bytes
        async with asyncio.timeout(_TAIL_TIMEOUT_S) as limit:
            while self._left > 0:
                if self._reader.is_over:
                    limit.reschedule(asyncio.get_running_loop().time() + _END_TIMEOUT_S)
                if await body.pour(self._take_of_tail):
                    return True
        return False

    def _take_of_tail(self, chunk: bytes) -> bool:
        """Returns whether to wait for more as long as before."""
        self._left -= len(chunk)
        was_over = self._reader.is_over
        for name, data in self._decoder.feed(chunk):
            self._reader.take(name, data)
        return self._left > 0 and self._reader.is_over == was_over
