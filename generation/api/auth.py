"""Who may do what: callers by their API key, operators by that or by their session."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import DisallowedHost
from ninja.security.base import AuthBase

from generation import conf
from generation.asgi import problems
from generation.errors import (
    CrossSite,
    DatabaseUnavailable,
    NotFound,
    StaccatoError,
    StaffOnly,
    Unauthorized,
    UserForbidden,
)
from generation.records import ANYBODY, Grant
from generation.runtime import process as runtime
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from django.http import HttpRequest, HttpResponse

    from generation.asgi.body import Head

_SCHEME = "bearer "
# A browser says so of a request that another site's page made it send.
_ELSEWHERE = {"cross-site", "same-site"}


class Bearer(AuthBase):
    """`Authorization: Bearer <key>`."""

    openapi_type = "http"
    openapi_scheme = "bearer"
    openapi_description = "An API key of the service."

    async def __call__(self, request: HttpRequest) -> Grant:
        return await authenticate(request)


class XApiKey(AuthBase):
    """The same key where a client can't set Authorization."""

    openapi_type = "apiKey"
    openapi_in = "header"
    openapi_name = "X-API-Key"

    async def __call__(self, request: HttpRequest) -> Grant:
        return await authenticate(request)


# Either; the first takes both, the second documents itself.
API_KEY = [Bearer(), XApiKey()]


@asynccontextmanager
async def entering(request: HttpRequest, head: Head) -> AsyncIterator[None]:
    """The entrance to a generation, before its body is read: is there room, who is it, is it
    JSON?

    Raises `TooManyInFlight`, `Draining`, `JournalUnavailable`, `Unauthorized`,
    `DatabaseUnavailable`, `CrossSite` or `UnsupportedMediaType`. The place is held until the
    block ends.
    """
    with runtime.current().entering():
        await authenticate(request)
        head.check_json()
        yield


async def authenticate(request: HttpRequest) -> Grant:
    """What the request's key allows; everything where none is given and none is required."""
    grant: Grant | None = getattr(request, "grant", None)
    if grant is None:
        try:
            grant = await _recognise(request)
        except StaccatoError as error:
            metrics.REQUESTS.labels(error.slug).inc()
            raise
        request.grant = grant  # type: ignore[attr-defined]
    return grant


async def _recognise(request: HttpRequest) -> Grant:
    key = _key_of(request.META)
    if key is not None:
        return await runtime.current().keys.recognise(key)
    if conf.load().keys_required:
        raise Unauthorized("give an API key: `Authorization: Bearer stc_…` or `X-API-Key: stc_…`")
    _refuse_other_sites(request)
    return ANYBODY


def _key_of(meta: Mapping[str, Any]) -> str | None:
    """The key that is given, or None. Raises `Unauthorized` where two differ."""
    bearer = meta.get("HTTP_AUTHORIZATION", "")
    keys = {bearer[len(_SCHEME) :].strip()} if bearer[: len(_SCHEME)].lower() == _SCHEME else set()
    if "HTTP_X_API_KEY" in meta:
        keys.add(meta["HTTP_X_API_KEY"].strip())
    if len(keys) > 1:
        raise Unauthorized("Authorization and X-API-Key hold different keys")
    return keys.pop() if keys else None


def _refuse_other_sites(request: HttpRequest) -> None:
    """Without keys, any page that a developer opens could spend the money behind localhost.

    Raises `CrossSite`.
    """
    if request.META.get("HTTP_SEC_FETCH_SITE") in _ELSEWHERE:
        raise CrossSite("this request comes from another site's page")
    if "HTTP_SEC_FETCH_SITE" in request.META:
        try:
            request.get_host()  # a name that was made to lead here is another site, too
        except DisallowedHost:
            raise CrossSite("ALLOWED_HOSTS lacks the name in the address") from None


def permit(grant: Grant, user_id: int) -> None:
    """Raises `UserForbidden`, in the same words whether there is such a user or not."""
    if grant.users is not None and user_id not in grant.users:
        metrics.REQUESTS.labels(UserForbidden.slug).inc()
        raise UserForbidden(f"this API key may not generate for user {user_id}")


def shows_key(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request brings a key along, good or bad."""
    bearer = headers.get(b"authorization", b"")[: len(_SCHEME)].lower() == _SCHEME.encode()
    return bearer or b"x-api-key" in headers


async def refuse(request: HttpRequest, page: Literal["pool", "metrics"]) -> HttpResponse | None:
    """The refusal, or None for who may see an operators' page.

    A session needs the full middleware; `asgi.py` sees to that.
    """
    access = conf.load().access_to(page)
    if access == "open":
        return None
    if access == "off":
        return problems.respond(NotFound("this page is switched off"))
    try:
        key = _key_of(request.META)
        if key is not None:
            return _refuse_callers(await runtime.current().keys.recognise(key))
    except (Unauthorized, DatabaseUnavailable) as error:
        return problems.respond(error)
    user = await request.auser()
    if user.is_active and getattr(user, "is_staff", False):
        return None
    return problems.respond(
        StaffOnly("log in to the admin as a member of the staff, or send a service's API key")
    )


def _refuse_callers(grant: Grant) -> HttpResponse | None:
    if grant.is_service:
        return None
    return problems.respond(StaffOnly("this API key is one user's; the page asks for a service's"))
