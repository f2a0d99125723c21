"""A django-ninja router: `POST /generate` for the user whom the project's own auth finds."""

from __future__ import annotations

from typing import Any

import ninja
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse

from generation.api.native.schemas import GenerateIn, GenerationOut
from generation.asgi.event_stream import EventStream
from generation.mounted.answering import respond


def make_router(**options: Any) -> ninja.Router:
    """Returns a router, to be mounted with ninja's `add_router()`.

    `options` are ninja's, e.g. `auth` and `throttle`. The user is what the auth callable returned,
    if that is a user; the `user` of what it returned, e.g. of a token; else `request.user`. Without
    one it answers 401.
    """
    router = ninja.Router(**{"tags": ["generation"], **options})

    @router.post("/generate", response=GenerationOut, summary="Generate a text")
    async def generate(request: HttpRequest, body: GenerateIn) -> HttpResponse | EventStream:
        """Takes and returns what the native API does: an answer, or with `stream` its events."""
        return await respond(request, await _user_of(request), body)

    return router


async def _user_of(request: HttpRequest) -> Any:
    found = getattr(request, "auth", None)
    kind = get_user_model()
    for each in (found, getattr(found, "user", None)):
        if isinstance(each, kind):
            return each
    return await request.auser() if hasattr(request, "auser") else None
