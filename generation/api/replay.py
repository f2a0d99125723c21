"""*Try again with another model*, of a generation's page: a form's request, by a session.

An operator waits for the answer, so it must not be a page of Django's own: those have two places at
work, and each has a thread. Here one thread, which all operators share, reads the session and the
texts in milliseconds. Then the generation runs as every other does, and nothing is held.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.http import HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.middleware.csrf import CsrfViewMiddleware
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse

from generation import access, replaying, user_keys
from generation.asgi.lean import lean
from generation.asgi.problems import render_problem
from generation.asgi.request import Request
from generation.connections.release import give_back_if_possible
from generation.errors import (
    BadRequest,
    CrossSite,
    DatabaseUnavailable,
    InvalidRequest,
    LLMError,
    NotFound,
    RuntimeNotOpen,
    StaffOnly,
)
from generation.models import GenerationLog
from generation.records import GenerationRequest
from generation.runtime import process as runtime
from generation.runtime.following import whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.errors import StaccatoError
    from generation.records import UserKey
    from generation.runtime.admission import Place

NEEDED = ("generation.view_generationlog", access.READ_CONTENT, replaying.PERMISSION)
# What a page of the project's gets by its middleware. Ours has no script and loads nothing.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


async def enter_operator(request: Request) -> Place:
    """The entrance of a person with a session, before the body is read. Sets `request.place`.

    Raises `TooManyInFlight`, `Draining`, `JournalUnavailable`, `StaffOnly` or
    `DatabaseUnavailable`.
    """
    place = request.place = runtime.current().admission.enter()
    try:
        await _in_thread(_authenticate, request)
    except BaseException:
        place.leave()
        raise
    return place


def render_page(error: StaccatoError) -> HttpResponse:
    """An error as a page that a person reads."""
    problem = render_problem(error)
    content = render_to_string("generation/replay_refused.html", {"error": error})
    response = HttpResponse(content, status=problem.status_code)
    for name in ("Retry-After", "Allow"):
        if name in problem:
            response[name] = problem[name]
    return _safe(response)


@lean(entrance=enter_operator, errors=render_page, is_counted=True, is_operators=True)
async def replay(request: Request, generation_id: UUID) -> HttpResponse:
    """Ask another model what a generation has asked, and go to both answers side by side.

    The row is the operator's, who spends the money: their limits count, and no customer's budget
    or bill has it. Its texts go with those of the first, see `forgetting`.
    """
    if not isinstance(request, Request):
        raise RuntimeNotOpen(runtime.HOW_TO_SERVE)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    asked = await _in_thread(_prepare, request, generation_id)
    wanted = GenerationRequest(
        user_id=asked.user_id,
        request_id=request.head.request_id,
        arrived_at=datetime.now(UTC),
        started=time.monotonic(),
        provider=asked.provider,
        model=asked.model,
        prompt=asked.replay.prompt,
        system=asked.replay.system,
        messages=asked.replay.messages,
        tools=asked.replay.tools,
        options=asked.replay.options,
        max_tokens=asked.replay.max_tokens,
        grant=asked.replay.grant,
        replay_of=asked.replay.of,
        author_id=asked.replay.author_id,
    )
    call = request.place.start(wanted)
    with contextlib.suppress(LLMError):  # the row has it
        await whole(call)
    return _safe(HttpResponseRedirect(asked.compared.replace(str(generation_id), str(call.id))))


class _Asked(NamedTuple):
    user_id: UserKey | None
    replay: replaying.Replay
    provider: str
    model: str
    compared: (
        str  # the page's address, with the id of the first generation in place of the new one's
    )


async def _in_thread(work: Callable[..., Any], *given: Any) -> Any:
    """Raises what the work does. Afterwards no connection is held."""

    def run() -> Any:
        try:
            return work(*given)
        finally:
            give_back_if_possible()

    return await sync_to_async(run)()


def _authenticate(request: Any) -> None:
    SessionMiddleware(_nothing).process_request(request)
    AuthenticationMiddleware(_nothing).process_request(request)
    user = request.user
    if not (user.is_active and getattr(user, "is_staff", False)):
        raise StaffOnly("log in to the admin, and try again from the generation's page")


def _prepare(request: Any, generation_id: UUID) -> _Asked:
    _require_own_page(request)
    user = request.user
    if not user.has_perms(NEEDED):
        raise StaffOnly(
            "this takes the permissions to view generations, to read prompts and answers, and to"
            " send a generation again; an administrator gives them"
        )
    log = GenerationLog.objects.filter(pk=generation_id).first()
    if log is None:
        raise NotFound("there is no such generation")
    provider, colon, model = request.POST.get("target", "").partition(":")
    if not colon:
        raise InvalidRequest("choose a model")
    try:
        compared = reverse("admin:generation_generationlog_compare", args=[generation_id])
    except NoReverseMatch:
        raise NotFound("this project has no admin that shows answers side by side") from None
    try:
        access.record(
            access.Action.REPLAY,
            request=request,
            rows=1,
            log_id=log.pk,
            selection=f"to {provider}:{model}",
        )
        found = replaying.read(log)
    except access.NotRecorded as error:
        raise DatabaseUnavailable(
            "the record of who reads prompts and answers can't be written now"
        ) from error
    except replaying.NotReplayable as lack:
        raise InvalidRequest(f"this generation can't be sent again, because {lack}") from None
    return _Asked(user_keys.key_of(user), found, provider, model, compared)


def _require_own_page(request: Any) -> None:
    """Raises `CrossSite` unless a page of ours has sent the form."""
    check = CsrfViewMiddleware(_nothing)
    try:
        check.process_request(request)
        refusal = check.process_view(request, _nothing, (), {})
    except DisallowedHost:
        raise BadRequest("this host name is not in ALLOWED_HOSTS") from None
    if refusal is not None:
        raise CrossSite("the form is too old, or another site's; go back, reload and try again")


def _nothing(_request: Any) -> Any:
    """What a middleware would call next."""


def _safe(response: HttpResponse) -> HttpResponse:
    for name, value in _HEADERS.items():
        response[name] = value
    return response
