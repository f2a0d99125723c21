"""From a generation under way to its caller: awaited whole, or followed as a stream."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from django.http import HttpResponse

from generation.asgi.body import set_encoded
from generation.asgi.event_stream import EventSource, EventStream
from generation.errors import StaccatoError
from generation.runtime import process as runtime
from generation.runtime.following import leave, reader_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from generation.asgi.uvicorn_writing import Sink
    from generation.events import Event
    from generation.pipeline.call import GenerationCall
    from generation.pipeline.relay import Reader
    from generation.records import Generation

_REPLAYED = {"Idempotency-Replayed": "true"}
EVENTS = 500  # encoded at once, because a reader that comes late finds thousands


class Dialect(Protocol):
    """How an API writes the events of one answer."""

    def encode(self, events: Sequence[Event]) -> bytes:
        """Returns them as server-sent events; b"" where the dialect has none for them."""

    def finish(self, generation: Generation) -> bytes:
        """Returns the last events. If the answer was made earlier, `encode` has had nothing."""

    def fail(self, error: StaccatoError) -> bytes:
        """Returns the last events of an answer that failed after its first content."""


def respond(document: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Returns a response with a JSON document."""
    content = orjson.dumps(document)
    return HttpResponse(content, content_type="application/json", headers=headers)


def answer_with(
    document: Any,
    generation: Generation,
    call: GenerationCall,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Returns the response with a generation's answer."""
    if generation.replayed:
        headers = {**(headers or {}), **_REPLAYED}
    response = respond(document, headers)
    if call.meter is not None:
        made = runtime.current().limits.headers(call.meter, call.request.grant)
        set_encoded(response, made.encoded)
    return response


def headers_of(generation: Generation | None, call: GenerationCall) -> dict[str, str]:
    """Of the response with this answer; None: it is under way."""
    asked = dict(_REPLAYED) if generation is not None and generation.replayed else {}
    if call.meter is not None:
        asked |= runtime.current().limits.headers(call.meter, call.request.grant).texts
    return asked


async def follow(
    call: GenerationCall, dialect: Dialect, headers: Mapping[str, str] | None = None
) -> EventStream:
    """Returns the stream of a generation, once its first content has come.

    Raises `TooManyInFlight`, or the error of a generation that fails before that.
    """
    stream = AnswerStream(call, dialect)
    return EventStream(stream, {**(headers or {}), **headers_of(await stream.begin(), call)})


class AnswerStream(EventSource):
    """Follows one generation for one client. Its last events leave when the row is safe."""

    def __init__(self, call: GenerationCall, dialect: Dialect) -> None:
        """Raises `TooManyInFlight`."""
        self._call = call
        self._dialect = dialect
        self._reader = reader_of(call)
        self._ahead: Sequence[Event] = ()

    async def begin(self) -> Generation | None:
        """Wait for the first content, until which an error has a status of its own.

        Returns the generation if it has ended without any, e.g. as the answer of an earlier
        request. Raises its error if it has failed; closes the stream then, or if it is cancelled.
        """
        try:
            if self._reader is not None:
                self._ahead = await self._reader.read()
            return None if self._ahead else await asyncio.shield(self._call.task)
        except BaseException:
            self.close()
            raise

    async def read(self) -> bytes:
        while not self.is_over:
            if not self._ahead and self._reader is not None:
                self._ahead = await self._reader.read()
            if not self._ahead:
                return await self._end()
            events, self._ahead = self._ahead[:EVENTS], self._ahead[EVENTS:]
            if encoded := self._dialect.encode(events):
                return encoded
        return b""

    def push_to(self, sink: Sink) -> None:
        if self._reader is not None:
            self._reader.on_news = functools.partial(self._push, self._reader, sink)

    def _push(self, reader: Reader, sink: Sink) -> bool:
        if not sink.is_ready:
            return False
        sink.write(self._dialect.encode(reader.take()))
        return True

    async def _end(self) -> bytes:
        try:
            generation = await asyncio.shield(self._call.task)
        except asyncio.CancelledError:
            raise
        except StaccatoError as error:
            failure = error
        except Exception:  # noqa: BLE001  # the owner of the task logs it
            failure = StaccatoError.from_bug()
        else:
            self.is_over = True
            return self._dialect.finish(generation)
        self.is_over = True
        self.outcome = failure.slug
        return self._dialect.fail(failure)

    def close(self) -> None:
        if self._reader is not None:  # else another client waits for the whole answer
            self._reader.close()
            leave(self._call)
