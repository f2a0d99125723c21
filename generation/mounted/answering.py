"""From a user and a body of the native API to its answer, whole or as a stream.

The project's handler serves it: so its middleware has the response, and errors are rendered here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from generation.api.answering import AnswerStream, headers_of
from generation.api.answering import respond as write
from generation.api.native.answers import answer
from generation.api.native.events import NativeEvents
from generation.asgi.event_stream import KEEP_ALIVE, KEEP_ALIVE_S, EventSource, EventStream
from generation.asgi.problems import render_problem
from generation.connections.release import give_back_if_possible
from generation.errors import StaccatoError, Unauthorized
from generation.python_api import loop_thread
from generation.python_api.requests import make_request
from generation.runtime.following import whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from generation.api.native.schemas import GenerateIn
    from generation.python_api.requests import User
    from generation.records import GenerationRequest
    from generation.runtime.process import Runtime


async def respond(request: HttpRequest, user: User, body: GenerateIn) -> HttpResponse | EventStream:
    """Ask for this user. Raises a `StaccatoError` only for a bug, of ours or the project's."""
    try:
        asked = _asked(request, user, body)
        await sync_to_async(give_back_if_possible)()
        runtime = await loop_thread.aruntime()
        if body.stream:
            return _AcrossLoops(runtime, *await runtime.arun(_begin(runtime, asked))).response()
        return write(*await runtime.arun(_ask(runtime, asked)))
    except StaccatoError as error:
        return problem(error)


def respond_sync(request: HttpRequest, user: User, body: GenerateIn) -> HttpResponse | EventStream:
    """`respond()` for a synchronous server."""
    try:
        asked = _asked(request, user, body)
        give_back_if_possible()
        runtime = loop_thread.runtime()
        if body.stream:
            return _InThread(runtime, *runtime.run(_begin(runtime, asked))).response()
        return write(*runtime.run(_ask(runtime, asked)))
    except StaccatoError as error:
        return problem(error)


def problem(error: StaccatoError) -> HttpResponse:
    """Returns the problem document of an error; raises the error of a bug, which the project's
    own tools shall see."""
    if error.status == StaccatoError.status:
        raise error
    return render_problem(error)


def require_user(user: Any) -> Any:
    """Returns the user. Raises `Unauthorized` for nobody."""
    if user is None or not getattr(user, "is_authenticated", False):
        raise Unauthorized("log in, or send what this site takes for its users' requests")
    return user


def _asked(request: HttpRequest, user: User, body: GenerateIn) -> GenerationRequest:
    return make_request(
        require_user(user),
        {
            "input": body.input,
            "variables": body.variables,
            "provider": body.provider,
            "model": body.model,
            "max_tokens": body.max_tokens,
            "metadata": body.metadata,
            "idempotency_key": request.headers.get("Idempotency-Key", ""),
            **body.conversation(),  # type: ignore[typeddict-item]  # of those names
        },
        is_streamed=body.stream,
    )


async def _ask(runtime: Runtime, asked: GenerationRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the answer and its headers."""
    call = runtime.start(asked)
    generation = await whole(call)
    return answer(generation), headers_of(generation, call)


async def _begin(runtime: Runtime, asked: GenerationRequest) -> tuple[AnswerStream, dict[str, str]]:
    """Returns the stream and its headers when there is a first content, until which an error has a
    status of its own."""
    call = runtime.start(asked)
    stream = AnswerStream(call, NativeEvents(call.id))
    return stream, headers_of(await stream.begin(), call)


class _Source(EventSource):
    """The stream of an answer that another event loop makes."""

    def __init__(self, runtime: Runtime, stream: AnswerStream, headers: dict[str, str]) -> None:
        self._runtime = runtime
        self._stream = stream
        self._headers = headers

    def response(self) -> EventStream:
        return EventStream(self, self._headers)

    async def read(self) -> bytes:
        return await self._stream.read()

    def close(self) -> None:
        """Django calls it at the response's end, in whichever thread."""
        if not self._runtime.loop.is_closed():
            self._runtime.loop.call_soon_threadsafe(self._stream.close)


class _AcrossLoops(_Source):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        reading: asyncio.Future[bytes] | None = None
        try:
            while True:
                reading = reading or asyncio.ensure_future(self._runtime.arun(self.read()))
                done, _ = await asyncio.wait([reading], timeout=KEEP_ALIVE_S)
                if not done:
                    yield KEEP_ALIVE
                    continue
                events, reading = reading.result(), None
                if not events:
                    return
                yield events
        finally:
            if reading is not None:
                reading.cancel()


class _InThread(_Source):
    """For a synchronous server, whose thread it keeps."""

    def __iter__(self) -> Iterator[bytes]:
        while events := self._runtime.run(self.read()):
            yield events
