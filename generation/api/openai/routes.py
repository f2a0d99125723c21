"""The routes of OpenAI's protocol, below /v1 and /u/{user_id}/v1."""

from __future__ import annotations

from django.http import HttpResponse

from generation.api import asking, auth
from generation.api.answering import answer_with, follow
from generation.api.base import API, JSONParser
from generation.api.documentation import documented
from generation.api.models import model, models
from generation.api.openai import (
    answers,
    background,
    errors,
    openapi,
    requests,
    response_answers,
    response_requests,
)
from generation.asgi.event_stream import EventStream
from generation.asgi.lean import lean
from generation.asgi.request import Request
from generation.errors import IdempotencyKeyInvalid, NotFound
from generation.runtime import process as runtime
from generation.runtime.following import whole

api = API(
    title="Staccato for clients of OpenAI's protocol",
    version="1",
    description="Set a client's base URL to this service's `/v1`, or to `/u/{user_id}/v1` with a"
    " service's key. Errors have OpenAI's shape.",
    urls_namespace="staccato-openai",
    openapi_url="/openai.json",
    docs_url="/openai-docs",
    parser=JSONParser(),
    docs_decorator=documented,
)


@lean(entrance=auth.enter_sdk, errors=errors.render, is_counted=True, takes_chats=True)
@api.post(
    "/chat/completions",
    operation_id="openai_chat_completions",
    summary="A chat completion, whole or streamed",
    openapi_extra=openapi.describe_chat(),
)
async def chat_completions(request: Request) -> HttpResponse | EventStream:
    """Takes what OpenAI's clients send, from any of the offered models.

    A provider of OpenAI's protocol gets the body nearly as it is. Members that another provider
    has no place for are refused by name.
    """
    body = asking.read_body(request)
    asked = requests.read(body)
    wanted = asking.make_request(request, asked, "openai", body)
    call = runtime.current().join(wanted) or request.place.start(wanted)
    if not asked.is_streamed:
        generation = await whole(call)
        completion = answers.whole(generation, wanted.arrived_at)
        return answer_with(completion, generation, call)
    events = answers.ChatEvents(call.id, wanted.arrived_at, wants_usage=asked.wants_usage)
    return await follow(call, events)


@lean(entrance=auth.enter_sdk, errors=errors.render, is_counted=True, takes_chats=True)
@api.post(
    "/responses",
    operation_id="openai_responses",
    summary="A response, whole, streamed, or made in the background",
    openapi_extra=openapi.describe_responses(),
)
async def responses(request: Request) -> HttpResponse | EventStream:
    """Takes texts, images and functions from OpenAI's newer clients, for any of the offered models.

    Nothing is kept for a next request: each has the whole conversation. A response with
    `background` is answered at once and goes on without its client.
    """
    body = asking.read_body(request)
    asked = response_requests.read(body)
    wanted = asking.make_request(request, asked, "responses", body)
    call = runtime.current().join(wanted) or request.place.start(wanted)
    if asked.is_background:
        return await background.begin(call, asked)
    if not asked.is_streamed:
        generation = await whole(call)
        return answer_with(response_answers.whole(generation, asked), generation, call)
    return await follow(call, response_answers.ResponseEvents(call.id, asked))


@lean(entrance=auth.identify_sdk, errors=errors.render)
@api.get(
    "/responses/{response_id}",
    operation_id="openai_retrieve_response",
    summary="A background response, or the rest of its events",
    openapi_extra=openapi.describe_retrieval(),
)
async def retrieve_response(request: Request, response_id: str) -> HttpResponse | EventStream:
    """Its status, and its answer once it has ended. With `stream=true`, its events after the one
    that `starting_after` names."""
    return await background.retrieve(request, response_id)


@lean(entrance=auth.identify_sdk, errors=errors.render)
@api.post(
    "/responses/{response_id}/cancel",
    operation_id="openai_cancel_response",
    summary="End a background response",
    openapi_extra=openapi.describe_cancellation(),
)
async def cancel_response(request: Request, response_id: str) -> HttpResponse:
    """Returns what came of it. One that has ended already stays as it is."""
    return await background.cancel(request, response_id)


@lean(entrance=auth.enter_sdk, errors=errors.render, is_counted=True, takes_chats=True)
@api.post(
    "/embeddings",
    operation_id="openai_embeddings",
    summary="Embeddings, from a provider of OpenAI's protocol",
    openapi_extra=openapi.describe_embeddings(),
)
async def embeddings(request: Request) -> HttpResponse:
    """Passes the request on. The row has the texts, the tokens and the cost, and no vectors."""
    body = asking.read_body(request)
    asked = requests.read_embeddings(body)
    wanted = asking.make_request(request, asked, "openai", body, path="embeddings")
    if wanted.idempotency_key:
        raise IdempotencyKeyInvalid("embeddings are not kept, so none can be sent again")
    call = request.place.start(wanted)
    generation = await whole(call)
    return answer_with(generation.original, generation, call)


describe_models = api.get(
    "/models",
    operation_id="openai_models",
    summary="The models that may be asked for",
    openapi_extra=openapi.describe_models(),
)
lean(entrance=auth.identify_sdk, errors=errors.render_for_both)(describe_models(models))

describe_model = api.get(
    "/models/{path:name}",
    operation_id="openai_model",
    summary="One of the models",
    openapi_extra=openapi.describe_model(),
)
lean(entrance=auth.identify_sdk, errors=errors.render_for_both)(describe_model(model))


@lean(errors=errors.render_for_both)
async def not_found(_request: Request, *_args: str | None, **_named: str) -> HttpResponse:
    """Everything below the base URL that is no route of either protocol."""
    raise NotFound("nothing matches this address; the base URL ends with /v1")
