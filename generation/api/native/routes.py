"""The native API's routes."""

from __future__ import annotations

import re
from uuid import UUID

from django.http import HttpResponse

from generation.api import auth, trace_context
from generation.api.answering import answer_with, follow, respond
from generation.api.base import API, JSONParser
from generation.api.documentation import documented
from generation.api.finding import find
from generation.api.native import examples, openapi
from generation.api.native.answers import answer, running_answer, stored_answer
from generation.api.native.events import NativeEvents, StoredEvents
from generation.api.native.fields import UserId
from generation.api.native.schemas import GenerateIn, GenerationOut, LimitsOut, StoredOut
from generation.api.pool import pool, pool_history
from generation.asgi.event_stream import EventStream
from generation.asgi.lean import lean
from generation.asgi.request import Request
from generation.errors import InvalidRequest
from generation.pipeline import idempotency
from generation.records import GenerationRequest, StoredGeneration
from generation.runtime import process as runtime
from generation.runtime.following import whole
from generation.telemetry.history import Seconds
from generation.telemetry.snapshot import PoolPage

api = API(
    title="Staccato",
    version="1",
    description="Generates text with an LLM and logs each generation. Every error is an"
    " RFC 9457 problem document; `type` is stable.",
    urls_namespace="staccato",
    parser=JSONParser(),
    docs_decorator=documented,
)


@lean(entrance=auth.enter, is_counted=True)
@api.post(
    "/generate/{user_id}",
    response=GenerationOut,
    operation_id="generation_api_generate",
    summary="Generate a text for a user",
    openapi_extra=openapi.describe_generate(),
)
async def generate(
    request: Request, user_id: UserId, body: GenerateIn | None = None
) -> HttpResponse | EventStream:
    """Fills the user's prompt template or takes the conversation, asks the LLM, stores the
    generation, answers.

    The answer leaves after its log row is committed. With `stream`, its text leaves while the LLM
    writes it, and the last events after the row is committed.
    """
    body = body or _EMPTY
    auth.permit(request.grant, user_id)
    asked = GenerationRequest(
        user_id=user_id,
        request_id=request.head.request_id,
        arrived_at=request.head.arrived_at,
        started=request.head.started,
        input=body.input,
        variables=body.variables,
        provider=body.provider,
        model=body.model,
        max_tokens=body.max_tokens,
        idempotency_key=idempotency.read(request.META.get("HTTP_IDEMPOTENCY_KEY")),
        grant=request.grant,
        trace=trace_context.read(request.META.get("HTTP_TRACEPARENT")),
        metadata=body.metadata,
        is_streamed=body.stream,
        **body.conversation(),
    )
    call = runtime.current().join(asked) or request.place.start(asked)
    if not body.stream:
        generation = await whole(call)
        return answer_with(answer(generation), generation, call)
    return await follow(call, NativeEvents(call.id))


_EMPTY = GenerateIn.model_validate({})


@lean(entrance=auth.identify)
@api.get(
    "/generations/{uuid:generation_id}",
    response=StoredOut,
    operation_id="generation_api_stored",
    summary="A generation that was made earlier, or is under way",
    openapi_extra=openapi.describe_stored(),
)
async def stored(request: Request, generation_id: UUID) -> HttpResponse:
    """Returns what the log has of it, or what has come of its answer so far. One that runs in
    another process is found when it has ended."""
    found = await find(request.grant, generation_id)
    if isinstance(found, StoredGeneration):
        return respond(stored_answer(found))
    return respond(running_answer(found))


@lean(entrance=auth.identify)
@api.get(
    "/generations/{uuid:generation_id}/events",
    operation_id="generation_api_events",
    summary="Its events, or the rest of them",
    openapi_extra=openapi.describe_events(),
)
async def events(request: Request, generation_id: UUID) -> EventStream:
    """Takes the stream up again after a connection is lost: sends the events that follow the one
    that `Last-Event-ID` names, and follows the generation if it is under way."""
    after = _last_event_id(request.META.get("HTTP_LAST_EVENT_ID"))
    found = await find(request.grant, generation_id)
    if isinstance(found, StoredGeneration):
        return EventStream(StoredEvents(found, after))
    return await follow(found, NativeEvents(found.id, after))


def _last_event_id(header: str | None) -> int | None:
    if not header:
        return None
    if not _POSITION.fullmatch(header):
        raise InvalidRequest("Last-Event-ID is the `id` of an event of this generation: a number")
    return int(header)


_POSITION = re.compile("[0-9]{1,12}")


@lean(entrance=auth.identify)
@api.get(
    "/limits",
    response=LimitsOut,
    operation_id="generation_api_limits",
    summary="The limits of the API key, and how they stand",
    openapi_extra=openapi.describe_limits(),
)
async def limits(request: Request) -> HttpResponse:
    """Returns those of the key itself and, if it is one user's, of the user. There may be others,
    of all together, whose amounts are not shown."""
    grant = request.grant
    users = grant.users
    user_id = next(iter(users)) if users is not None and len(users) == 1 else None
    found = await runtime.current().limits.standing(grant, user_id)
    return respond({"limits": found})


describe_pool = api.get(
    "/pool",
    response=PoolPage,
    operation_id="generation_api_pool",
    summary="The connection pool now and since start",
    openapi_extra=openapi.describe_pool(examples.POOL),
)
lean(when=auth.needs_no_session("pool"))(describe_pool(pool))

describe_history = api.get(
    "/pool/history",
    response=Seconds,
    operation_id="generation_api_pool_history",
    summary="The last two minutes, second by second",
    openapi_extra=openapi.describe_pool(examples.HISTORY),
)
lean(when=auth.needs_no_session("pool"))(describe_history(pool_history))
