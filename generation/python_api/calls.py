"""`generate()`, `generate_sync()` and `stream()`: our three phases, asked for in Python."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

from asgiref.sync import sync_to_async

from generation.connections.held import require_sync
from generation.connections.release import Released, give_back_if_possible
from generation.events import TextDelta, of_generation
from generation.python_api import loop_thread
from generation.python_api.requests import make_request
from generation.runtime.following import leave, reader_of, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Unpack
    from uuid import UUID

    from generation.events import Event
    from generation.pipeline.call import GenerationCall
    from generation.pipeline.relay import Reader
    from generation.python_api.requests import Asked, User
    from generation.records import Generation, GenerationRequest
    from generation.runtime.process import Runtime


async def generate(user: User = None, **asked: Unpack[Asked]) -> Generation:
    """Ask the LLM, and return its answer once its log row is committed, or safe in the journal.

    `user` is a user, its key, or None; `Asked` lists the arguments. The caller's Django connections
    are given back first; inside a transaction it raises `HeldInTransaction` with DEBUG on, else it
    is counted and logged.

    Raises `InvalidRequest` or another `StaccatoError`; an `LLMError` has left a row. If it is
    cancelled, the LLM call ends at once and a row is left; with an idempotency key it goes on.
    """
    request = make_request(user, asked)
    await sync_to_async(give_back_if_possible)()
    runtime = await loop_thread.aruntime()
    return await runtime.arun(_generate(runtime, request))


def generate_sync(user: User = None, **asked: Unpack[Asked]) -> Generation:
    """`generate()` for synchronous code: views, tasks, commands.

    Raises `WrongThread` in an event loop's thread, which it would block.
    """
    require_sync("await generate()")
    request = make_request(user, asked)
    give_back_if_possible()
    runtime = loop_thread.runtime()
    return runtime.run(_generate(runtime, request))


def stream(user: User = None, **asked: Unpack[Asked]) -> Stream:
    """`generate()`, whose answer is read while it comes:

        async with stream(user, prompt="…") as answer:
            async for text in answer.texts():
                …
        answer.generation  # once its row is safe

    Leaving the block before the end abandons the LLM call, as cancelling `generate()` does.
    """
    return Stream(make_request(user, asked, is_streamed=True))


class Stream:
    """An answer while it comes: an async iterator of `generation.events`, inside `async with`."""

    def __init__(self, request: GenerationRequest) -> None:
        self.id: UUID | None = None  # the log row's, once the block is entered
        self.generation: Generation | None = None  # once the last event was read
        self._request = request
        self._released = Released(must=False)
        self._runtime: Runtime
        self._call: GenerationCall | None = None
        self._reader: Reader | None = None
        self._ahead: deque[Event] = deque()
        self._has_events = False

    async def __aenter__(self) -> Self:
        await self._released.__aenter__()
        self._runtime = await loop_thread.aruntime()
        await self._runtime.arun(self._begin())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        await self._runtime.arun(self._leave())
        await self._released.__aexit__(kind, *exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Raises what `generate()` does."""
        if self._call is None:
            raise RuntimeError("a stream is read inside `async with stream(…) as answer:`")
        if not self._ahead and self.generation is None:
            await self._runtime.arun(self._read())
        if not self._ahead:
            raise StopAsyncIteration
        return self._ahead.popleft()

    async def texts(self) -> AsyncIterator[str]:
        """Yields the pieces of the answer's text, without thoughts and tool calls."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    async def _begin(self) -> None:
        self._call = self._runtime.start(self._request)
        self.id = self._call.id
        self._reader = reader_of(self._call)

    async def _read(self) -> None:
        assert self._call is not None
        events = await self._reader.read() if self._reader is not None else ()
        if events:
            self._has_events = True
            self._ahead.extend(events)
            return
        self.generation = await asyncio.shield(self._call.task)
        if not self._has_events:  # the answer of an earlier request under the same key
            self._ahead.extend(of_generation(self.generation))

    async def _leave(self) -> None:
        assert self._call is not None
        if self._reader is not None:
            self._reader.close()
        leave(self._call)


async def _generate(runtime: Runtime, request: GenerationRequest) -> Generation:
    return await whole(runtime.start(request))
