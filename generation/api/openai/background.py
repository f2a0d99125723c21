"""Background responses: they go on without a client, who asks for them by their names.

While one runs, its events come from its stream if it runs in this process. From another one, and
after its end, they come from its row.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from generation.api import auth
from generation.api.answering import AnswerStream, answer_with, follow, respond
from generation.api.asking import Asked
from generation.api.finding import find
from generation.api.openai import response_answers
from generation.api.openai.response_answers import ResponseEvents
from generation.asgi.event_stream import EventSource, EventStream
from generation.errors import InvalidRequest, NotFound
from generation.pipeline.call import GenerationCall
from generation.records import StoredGeneration
from generation.runtime import following
from generation.runtime import process as runtime
from generation.telemetry.siblings import Running

if TYPE_CHECKING:
    from django.http import HttpResponse

    from generation.asgi.request import Request

Found: TypeAlias = GenerationCall | Running | StoredGeneration
LOOK_EVERY_S = 1.0  # whether a response of another process has ended
_NAME = re.compile("resp_([0-9a-f]{32})")
_NUMBER = re.compile("[0-9]{1,12}")


async def begin(call: GenerationCall, asked: Asked) -> HttpResponse | EventStream:
    """Answers at once, unless phase 1 refuses the request: that has its own status."""
    if not await following.begun(call):
        if asked.is_streamed:
            return await follow(call, ResponseEvents(call.id, asked))
        generation = await following.whole(call)
        return answer_with(response_answers.whole(generation, asked), generation, call)
    if asked.is_streamed:
        return EventStream(_PromptStream(call, ResponseEvents(call.id, asked)))
    return respond(_document(call.id, call, asked))


async def retrieve(request: Request, name: str) -> HttpResponse | EventStream:
    """Raises `NotFound` or `InvalidRequest`."""
    after = _starting_after(request.GET.get("starting_after"))
    found = await _find(request, name)
    asked = _asked_of(found)
    events = ResponseEvents(_id_of(name), asked, after)
    if request.GET.get("stream") != "true":
        return respond(_document(_id_of(name), found, asked))
    if isinstance(found, StoredGeneration):
        return EventStream(_RowStream(found, events))
    if not asked.is_background:
        raise InvalidRequest("only a background response can be streamed a second time")
    if isinstance(found, Running):
        return EventStream(_DistantStream(_id_of(name), events))
    return EventStream(_PromptStream(found, events))


async def cancel(request: Request, name: str) -> HttpResponse:
    """Ends a response, and returns what is stored of it; one that has ended stays as it is.

    Raises `NotFound` or `InvalidRequest`.
    """
    found = await _find(request, name)
    generation_id = _id_of(name)
    if isinstance(found, StoredGeneration):
        return respond(_document(generation_id, found, _asked_of(found)))
    if not _asked_of(found).is_background:
        raise InvalidRequest("only a background response can be cancelled")
    if isinstance(found, Running):
        await runtime.current().siblings.find(generation_id, cancel=True)
        await _ended_elsewhere(generation_id)
    else:
        found.cancel()
        await following.ended(found)
    stored = await find(request.grant, generation_id)
    return respond(_document(generation_id, stored, _asked_of(stored)))


async def _find(request: Request, name: str) -> Found:
    """Raises `NotFound`, in the same words for all that the caller may not see."""
    generation_id = _id_of(name)
    try:
        found: Found = await find(request.grant, generation_id)
    except NotFound:
        elsewhere = await runtime.current().siblings.find(generation_id)
        # If it runs nowhere, its row may have been written meanwhile.
        found = elsewhere or await find(request.grant, generation_id)
    user_id = (found.request if isinstance(found, GenerationCall) else found).user_id
    named = request.resolver_match.kwargs.get("user_id") if request.resolver_match else None
    if not auth.covers(request.grant, user_id) or (named is not None and int(named) != user_id):
        raise NotFound("there is no such response")
    return found


def _id_of(name: str) -> UUID:
    found = _NAME.fullmatch(name)
    if found is None:
        raise NotFound("there is no such response")
    return UUID(hex=found[1])


def _starting_after(given: str | None) -> int:
    if not given:
        return -1
    if not _NUMBER.fullmatch(given):
        raise InvalidRequest("starting_after is the `sequence_number` of an event: a number")
    return int(given)


def _asked_of(found: Found) -> Asked:
    """What is known of the request."""
    if isinstance(found, StoredGeneration):
        return Asked(found.generation.model, (), is_background=True)
    if isinstance(found, Running):
        return Asked(found.model, (), is_background=found.is_background)
    request = found.request
    return Asked(
        request.model,
        (),
        options=request.options,
        max_tokens=request.max_tokens,
        is_background=request.is_background,
    )


def _document(generation_id: UUID, found: Found, asked: Asked) -> dict[str, Any]:
    if isinstance(found, StoredGeneration):
        return response_answers.stored(found, asked)
    status = "in_progress" if found.has_content else "queued"
    return response_answers.under_way(generation_id, asked.model, asked, status)


async def _ended_elsewhere(generation_id: UUID) -> None:
    while await runtime.current().siblings.find(generation_id):  # noqa: ASYNC110  # no event reaches us
        await asyncio.sleep(LOOK_EVERY_S)


class _PromptStream(AnswerStream):
    """Begins before the answer does: its client needs the response's name to come back."""

    def __init__(self, call: GenerationCall, events: ResponseEvents) -> None:
        """Raises `TooManyInFlight`."""
        super().__init__(call, events)
        self._opening = events.begin()

    async def read(self) -> bytes:
        opening, self._opening = self._opening, b""
        return opening or await super().read()


class _RowStream(EventSource):
    """The events of a response that has ended."""

    def __init__(self, found: StoredGeneration, events: ResponseEvents) -> None:
        self._rest = events.of_row(found)

    async def read(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    def close(self) -> None:
        pass


class _DistantStream(EventSource):
    """The events of a response that runs in another process: they come when it has ended."""

    def __init__(self, generation_id: UUID, events: ResponseEvents) -> None:
        self._id = generation_id
        self._events = events

    async def read(self) -> bytes:
        if self.is_over:
            return b""
        await _ended_elsewhere(self._id)
        row = await runtime.current().store.generations.read(self._id)
        self.is_over = True
        if row is not None:
            return self._events.of_row(row)
        return self._events.begin() + self._events.fail(NotFound("the response is lost"))

    def close(self) -> None:
        pass
