"""The routes of Anthropic's protocol, below /v1 and /u/{user_id}/v1."""

from __future__ import annotations

from django.http import HttpResponse

from generation.api import asking, auth
from generation.api.answering import answer_with, follow, respond
from generation.api.anthropic import answers, errors, openapi, requests
from generation.api.base import API, JSONParser
from generation.api.documentation import documented
from generation.asgi.event_stream import EventStream
from generation.asgi.lean import lean
from generation.asgi.request import Request
from generation.errors import ModelForbidden, NotFound, ParameterNotSupported
from generation.records import Prompt
from generation.runtime import process as runtime
from generation.runtime.following import whole

_FORWARDED = ("anthropic-version", "anthropic-beta")

api = API(
    title="Staccato for clients of Anthropic's protocol",
    version="1",
    description="Set a client's base URL to this service, or to `/u/{user_id}` with a service's"
    " key. Errors have Anthropic's shape.",
    urls_namespace="staccato-anthropic",
    openapi_url="/anthropic.json",
    docs_url="/anthropic-docs",
    parser=JSONParser(),
    docs_decorator=documented,
)


@lean(entrance=auth.enter_sdk, errors=errors.render, is_counted=True, takes_chats=True)
@api.post(
    "/messages",
    operation_id="anthropic_messages",
    summary="A message, whole or streamed",
    openapi_extra=openapi.describe_messages(),
)
async def messages(request: Request) -> HttpResponse | EventStream:
    """Takes what Anthropic's clients send, from any of the offered models.

    Anthropic gets the body nearly as it is, with the client's version and betas. Members that
    another provider has no place for are refused by name.
    """
    body = asking.read_body(request)
    asked = requests.read(body)
    headers = asking.forwarded(request, *_FORWARDED)
    wanted = asking.make_request(request, asked, "anthropic", body, headers)
    call = runtime.current().join(wanted) or request.place.start(wanted)
    own = {"request-id": request.head.request_id}
    if not asked.is_streamed:
        generation = await whole(call)
        return answer_with(answers.whole(generation), generation, call, own)
    return await follow(call, answers.MessageEvents(call.id), own)


@lean(entrance=auth.enter_sdk, errors=errors.render, is_counted=True, takes_chats=True)
@api.post(
    "/messages/count_tokens",
    operation_id="anthropic_count_tokens",
    summary="The tokens of a request, if its provider counts them",
    openapi_extra=openapi.describe_count(),
)
async def count_tokens(request: Request) -> HttpResponse:
    """Asks Anthropic. Nothing is generated and nothing is paid, so there is no row; it takes a
    request of its caller's limits."""
    body = asking.read_body(request)
    asked = requests.read(body)
    headers = asking.forwarded(request, *_FORWARDED)
    wanted = asking.make_request(request, asked, "anthropic", body, headers, path="count_tokens")
    llm = runtime.current().llm
    provider, model = llm.choose("", wanted.model)
    if not wanted.grant.covers(provider, model):
        raise ModelForbidden(f"this API key may not use {provider}:{model}")
    prompt = Prompt(
        text="",
        system="",
        provider=provider,
        model=model,
        max_tokens=1,
        grant=wanted.grant,
        messages=wanted.messages,
        verbatim=wanted.verbatim,
    )
    try:
        llm.check(prompt)
    except ParameterNotSupported:
        raise NotFound(f"{provider} does not count tokens before it answers") from None
    limits = runtime.current().limits
    meter = await limits.admit(wanted, prompt, is_free=True)
    try:
        outcome = await llm.run(llm.begin(prompt, meter=meter))
    finally:
        if meter is not None:
            meter.release()
    own = {"request-id": request.head.request_id, **limits.headers(meter, wanted.grant).texts}
    return respond(outcome.require_reply().original, own)
