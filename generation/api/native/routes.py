"""The native API's routes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from django.http import HttpResponse

from generation.api import auth, trace_context
from generation.api.base import API, JSONParser
from generation.api.documentation import documented
from generation.api.native import openapi
from generation.api.native.schemas import GenerateIn, GenerationOut, UserId
from generation.api.pool import pool
from generation.asgi.lean import lean
from generation.asgi.request import Request
from generation.errors import AbandonedByClient
from generation.pipeline import idempotency
from generation.records import GenerationRequest
from generation.runtime import process as runtime
from generation.telemetry.snapshot import PoolPage

if TYPE_CHECKING:
    from generation.records import Generation

api = API(
    title="Staccato",
    version="1",
    description="Generates text with an LLM and logs each generation. Every error is an"
    " RFC 9457 problem document; `type` is stable.",
    urls_namespace="api-v1",
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
    auth=auth.API_KEY,
)
async def generate(
    request: Request, user_id: UserId, body: GenerateIn | None = None
) -> HttpResponse:
    """Fills the user's prompt template, asks the LLM, stores the generation, answers.

    The answer leaves after its log row is committed.
    """
    body = body or _EMPTY
    auth.permit(request.grant, user_id)
    key = idempotency.read(request.META.get("HTTP_IDEMPOTENCY_KEY"))
    call = request.place.start(
        GenerationRequest(
            user_id=user_id,
            request_id=request.head.request_id,
            arrived_at=request.head.arrived_at,
            started=request.head.started,
            input=body.input,
            variables=body.variables,
            provider=body.provider,
            model=body.model,
            max_tokens=body.max_tokens,
            idempotency_key=key,
            grant=request.grant,
            trace_id=trace_context.trace_id(request.META.get("HTTP_TRACEPARENT")),
            metadata=body.metadata,
        )
    )
    try:
        generation = await asyncio.shield(call.task)
    except asyncio.CancelledError:
        # A client that sent an Idempotency-Key comes back for the answer.
        policy = runtime.current().settings.on_disconnect
        if policy == "cancel" or (policy == "auto" and not key):
            call.abandon(AbandonedByClient("the client left before the answer was complete"))
        raise
    return _answer(generation)


_EMPTY = GenerateIn.model_validate({})


def _answer(generation: Generation) -> HttpResponse:
    usage = generation.usage
    content = {
        "id": generation.id,
        "result": generation.result,
        "tokens": usage.known_tokens,
        "usage": {
            "input_tokens": usage.input_tokens or 0,  # unknown; clients expect a number
            "output_tokens": usage.output_tokens or 0,
            "total_tokens": usage.known_tokens,
        },
        "model": generation.model,
        "provider": generation.provider,
        "latency_ms": generation.latency_ms,
    }
    headers = {"Idempotency-Replayed": "true"} if generation.replayed else None
    return HttpResponse(orjson.dumps(content), content_type="application/json", headers=headers)


describe_pool = api.get(
    "/pool",
    response=PoolPage,
    operation_id="generation_api_pool",
    summary="The connection pool now and since start",
    openapi_extra=openapi.describe_pool(),
)
lean(when=auth.needs_no_session("pool"))(describe_pool(pool))
