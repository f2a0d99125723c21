"""The list of models that a client may name, in the shape that its vendor has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from generation.api.answering import respond
from generation.errors import ModelNotAllowed
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from django.http import HttpResponse

    from generation.asgi.request import Request

# No provider says when a name was given, and clients want a moment.
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def is_anthropic(request: Request) -> bool:
    """Whether the client speaks Anthropic's protocol: both have the same path."""
    return b"anthropic-version" in request.head.headers


async def models(request: Request) -> HttpResponse:
    """The names of LLM_MODELS, and the models of LLM_PROVIDER and LLM_ALLOWED."""
    names = _names(request)
    if is_anthropic(request):
        return respond(
            {
                "data": list(map(_as_anthropic, names)),
                "has_more": False,
                "first_id": next(iter(names), None),
                "last_id": next(reversed(names), None),
            }
        )
    return respond({"object": "list", "data": [_as_openai(*entry) for entry in names.items()]})


async def model(request: Request, name: str) -> HttpResponse:
    """One of them."""
    names = _names(request)
    if name not in names:
        raise ModelNotAllowed(f"{name} is not offered here; GET /v1/models lists what is")
    return respond(_as_anthropic(name) if is_anthropic(request) else _as_openai(name, names[name]))


def _names(request: Request) -> dict[str, str]:
    """Returns the names that the API key allows, with their providers."""
    return {
        name: target.provider
        for name, target in runtime.current().llm.offer.models.items()
        if request.grant.covers(target.provider, target.model)
    }


def _as_openai(name: str, provider: str) -> dict[str, Any]:
    created = int(_CREATED.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": provider}


def _as_anthropic(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _CREATED.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
