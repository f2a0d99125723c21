"""The HTTP API: routes, schemas, and errors into responses."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import ninja
import orjson
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from generation import conf
from generation.api import auth as access
from generation.api.native import openapi
from generation.asgi import body as edge
from generation.asgi import problems
from generation.errors import InvalidRequest, MalformedBody, StaccatoError, release_frames
from generation.pipeline import idempotency, prompts
from generation.records import GenerationRequest
from generation.runtime import process as runtime
from generation.telemetry.snapshot import PoolPage

if TYPE_CHECKING:
    from generation.records import Generation, Grant

logger = logging.getLogger(__name__)

_BIGINT_MAX = 2**63 - 1


class JSONParser(Parser):
    """orjson is strict where the standard library is lenient: depth, surrogates, NaN."""

    def parse_body(self, request: HttpRequest) -> Any:
        try:
            return orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            if "surrogate in string" in str(error):  # an escape such as \\ud800, alone
                raise InvalidRequest("the body holds a lone surrogate, which no text can") from None
            raise MalformedBody(f"the body is not valid JSON: {error}") from None


def _storable(text: str) -> str:
    if not prompts.is_storable(text):
        raise ValueError("holds a NUL character, which can't be stored")
    return text


Text = Annotated[
    str, AfterValidator(_storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
]
Name = Annotated[Text, Field(max_length=100)]
UserId = Annotated[int, ninja.Path(ge=1, le=_BIGINT_MAX, description="The user's key.")]


class GenerateIn(BaseModel):
    """Everything is optional: an empty body sends the user's template as it stands."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [openapi.REQUEST]})

    input: Text = Field("", description="Fills `$input`, or follows the template.")
    variables: dict[Name, Text] = Field(
        default_factory=dict, max_length=100, description="Fill the template's `$name`s."
    )
    provider: Text = Field("", max_length=32, description="One that the service offers.")
    model: Text = Field("", max_length=200, description="One that the service offers.")
    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="Longest answer.")


class UsageOut(ninja.Schema):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class GenerationOut(ninja.Schema):
    id: UUID = Field(description="Key of the generation's log row.")
    result: str
    tokens: int = Field(description="The total, as in `usage`.")
    usage: UsageOut
    model: str = Field(description="The model that answered.")
    provider: str
    latency_ms: int = Field(description="From the request's arrival to the LLM's answer.")


class API(ninja.NinjaAPI):
    def on_exception(self, request: HttpRequest, exc: Any) -> Any:
        try:
            return super().on_exception(request, exc)
        finally:
            release_frames(exc)

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002
        """What a view could hang headers on; ours make their own responses."""
        return _NO_RESPONSE


_NO_RESPONSE = HttpResponse()
api = API(
    title="Staccato",
    version="1",
    description="Generates text with an LLM and logs each generation. Every error is an"
    " RFC 9457 problem document; `type` is stable.",
    urls_namespace="api-v1",
    parser=JSONParser(),
)


@api.post(
    "/generate/{user_id}",
    response=GenerationOut,
    summary="Generate a text for a user",
    openapi_extra=openapi.describe_generate(),
    auth=access.API_KEY,
)
async def generate(
    request: HttpRequest,
    user_id: UserId,
    body: GenerateIn | None = None,
) -> HttpResponse:
    """Fills the user's prompt template, asks the LLM, stores the generation, answers.

    The answer leaves after its log row is committed.
    """
    started = time.monotonic()
    body = body or _EMPTY
    request.request_id = _request_id(request)  # type: ignore[attr-defined]  # for errors too
    grant: Grant = request.auth  # type: ignore[attr-defined]
    access.permit(grant, user_id)
    key = idempotency.read(request.META.get("HTTP_IDEMPOTENCY_KEY"))
    call = runtime.current().start(
        GenerationRequest(
            user_id=user_id,
            request_id=request.request_id,  # type: ignore[attr-defined]
            arrived_at=datetime.now(UTC),
            started=started,
            input=body.input,
            variables=body.variables,
            provider=body.provider,
            model=body.model,
            max_tokens=body.max_tokens,
            idempotency_key=key,
            grant=grant,
        )
    )
    try:
        generation = await asyncio.shield(call.task)
    except asyncio.CancelledError:
        # Who gave a key comes back for the answer.
        policy = conf.load().on_disconnect
        if policy == "cancel" or (policy == "auto" and not key):
            call.abandon("the client left before the LLM answered")
        raise
    return _answer(generation, call.request.request_id)


_EMPTY = GenerateIn.model_validate({})


def _answer(generation: Generation, request_id: str) -> HttpResponse:
    usage = generation.usage
    content = {
        "id": generation.id,
        "result": generation.result,
        "tokens": usage.total_tokens,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        },
        "model": generation.model,
        "provider": generation.provider,
        "latency_ms": generation.latency_ms,
    }
    headers = {"X-Request-ID": request_id}
    if generation.replayed:
        headers["Idempotency-Replayed"] = "true"
    return HttpResponse(orjson.dumps(content), content_type="application/json", headers=headers)


def _request_id(request: HttpRequest) -> str:
    """The caller's X-Request-ID where it is fit to be kept, else a new one."""
    given = edge.fit_request_id(request.META.get("HTTP_X_REQUEST_ID", ""))
    # Unique is enough, and the system's randomness costs several times as much.
    return given or f"{random.getrandbits(128):032x}"


@api.get(
    "/pool",
    response=PoolPage,
    summary="The connection pool now and since start",
    openapi_extra=openapi.describe_pool(),
)
async def pool(request: HttpRequest) -> HttpResponse:
    """Connections open, checked out and waited for, and LLM calls in flight, of the process
    that answers.

    `processes` lists all that serve this deployment on this host, `total` adds them up: peaks
    as if they had come at one moment, quantiles as those of the worst process."""
    refusal = await access.refuse(request, "pool")
    return refusal or JsonResponse((await runtime.current().pool_page()).as_json())


@api.exception_handler(StaccatoError)
def _on_staccato_error(request: HttpRequest, error: StaccatoError) -> HttpResponse:
    response = problems.respond(error)
    if request_id := getattr(request, "request_id", ""):
        response["X-Request-ID"] = request_id
    return response


@api.exception_handler(ValidationError)
def _on_validation_error(_request: HttpRequest, error: ValidationError) -> HttpResponse:
    faults = [
        {"where": _where(fault["loc"]), "why": fault["msg"].removeprefix("Value error, ")}
        for fault in error.errors
    ]
    first = faults[0]
    return problems.respond(InvalidRequest(f"{first['where']}: {first['why']}"), errors=faults)


def _where(location: tuple[str | int, ...]) -> str:
    """("body", "body", "input") → body.input: ninja names the source, then the parameter."""
    source, _parameter, *inner = location if location[0] == "body" else (location[0], *location)
    return ".".join(str(part) for part in (source, *inner))


@api.exception_handler(HttpError)
def _on_http_error(_request: HttpRequest, error: HttpError) -> HttpResponse:
    # ninja wraps what the parser raises.
    cause = error.__cause__
    if isinstance(cause, StaccatoError):
        return problems.respond(cause)
    return problems.from_plain(HttpResponse(str(error), status=error.status_code))


@api.exception_handler(Exception)
def _on_bug(_request: HttpRequest, error: Exception) -> HttpResponse:
    logger.error("a request failed of a bug", exc_info=error)
    return problems.respond(StaccatoError.from_bug())
