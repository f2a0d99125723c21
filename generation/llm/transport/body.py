"""The body of a reply, handed on piece by piece in the step of the loop that has read it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Body(httpx.AsyncByteStream):
    """Can be read in parts: each call goes on where the one before has ended."""

    has_ended = False  # all of it has been handed on, as far as one can know without waiting

    @abstractmethod
    async def pour(self, take: Callable[[bytes], object]) -> bool:
        """Call `take` with each piece as it comes, without a turn of the loop between.

        Returns True at the end of the body, and False once `take` has returned something false.
        Nothing is read until the next call then. Raises what `take` raises, and
        `httpx.TransportError` if the body breaks off. May be cancelled, and loses nothing by it.
        """

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        pieces: list[bytes] = []
        if await self.pour(pieces.append):  # which returns None, so the first piece ends it
            raise StopAsyncIteration
        return pieces[0]


class PulledBody(Body):
    """That of a transport which can't push."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream
        self._chunks = aiter(stream)

    async def pour(self, take: Callable[[bytes], object]) -> bool:
        async for chunk in self._chunks:
            if not take(chunk):
                return False
        return True

    async def aclose(self) -> None:
        await self._stream.aclose()


def body_of(response: httpx.Response) -> Body:
    """Returns the body of a response from any transport."""
    stream = cast("httpx.AsyncByteStream", response.stream)
    return stream if isinstance(stream, Body) else PulledBody(stream)
