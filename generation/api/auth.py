"""Who may do what: callers by their API key, operators by an API key or by their session."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import DisallowedHost

from generation.api import tickets
from generation.api_keys import tokens
from generation.asgi.request import Request
from generation.errors import (
    CrossSite,
    NotFound,
    RuntimeNotOpen,
    StaffOnly,
    Unauthorized,
    UserForbidden,
)
from generation.records import ANYBODY, Grant
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from django.http import HttpRequest

    from generation.records import UserKey
    from generation.runtime.admission import Place

    Page = Literal["pool", "metrics", "docs"]

_SCHEME = "bearer "
# What a browser says of a request that a page of another site made it send.
_FOREIGN_SITES = {"cross-site", "same-site"}


async def enter(request: Request) -> Place:
    """The entrance to a generation, before its body is read: is there room, who is calling, is
    the body JSON? Sets `request.grant` and `request.place`.

    Raises `TooManyInFlight`, `Draining`, `JournalUnavailable`, `Unauthorized`,
    `DatabaseUnavailable`, `CrossSite` or `UnsupportedMediaType`.
    """
    return await _enter(request, _authenticate)


async def enter_sdk(request: Request) -> Place:
    """The same for the vendors' SDKs, which can't be used without a key: if the service requires
    none, one that is not ours is none."""
    return await _enter(request, _authenticate_sdk)


async def _enter(request: Request, authenticate: Callable[[Request], Awaitable[Grant]]) -> Place:
    place = request.place = runtime.current().admission.enter_unknown()
    try:
        request.grant = await authenticate(request)
        runtime.current().admission.require_share(place, request.grant)
        request.head.check_json()
    except BaseException:
        place.leave()
        raise
    return place


async def identify(request: Request) -> AbstractContextManager[object]:
    """The entrance to what is in the log. Sets `request.grant`.

    Raises `Unauthorized`, `DatabaseUnavailable` or `CrossSite`.
    """
    request.grant = await _authenticate(request)
    return contextlib.nullcontext()


async def identify_sdk(request: Request) -> AbstractContextManager[object]:
    """The same for the vendors' SDKs."""
    request.grant = await _authenticate_sdk(request)
    return contextlib.nullcontext()


async def _authenticate_sdk(request: Request) -> Grant:
    key = _key_of(request.META)
    if key is None or runtime.current().settings.keys_required or tokens.is_ours(key):
        return await _authenticate(request)
    _refuse_other_sites(request)
    return ANYBODY


async def _authenticate(request: Request) -> Grant:
    """What the request's key or ticket allows; everything where there is neither, and no key is
    required."""
    key = _key_of(request.META)
    if key is not None:
        return await runtime.current().keys.recognise(key)
    if tickets.is_shown(request.META):
        return Grant(key_id=None, users=frozenset({tickets.read("generate", request.META)}))
    if runtime.current().settings.keys_required:
        raise Unauthorized("send an API key: `Authorization: Bearer stc_…` or `X-API-Key: stc_…`")
    _refuse_other_sites(request)
    return ANYBODY


def _key_of(meta: Mapping[str, Any]) -> str | None:
    """The request's key, or None. Raises `Unauthorized` if it has two that differ."""
    bearer = meta.get("HTTP_AUTHORIZATION", "")
    keys = {bearer[len(_SCHEME) :].strip()} if bearer[: len(_SCHEME)].lower() == _SCHEME else set()
    if "HTTP_X_API_KEY" in meta:
        keys.add(meta["HTTP_X_API_KEY"].strip())
    if len(keys) > 1:
        raise Unauthorized("Authorization and X-API-Key contain different keys")
    return keys.pop() if keys else None


def _refuse_other_sites(request: HttpRequest) -> None:
    """Without keys, any page that a developer opens could spend money through localhost.

    Raises `CrossSite`.
    """
    if request.META.get("HTTP_SEC_FETCH_SITE") in _FOREIGN_SITES:
        raise CrossSite("this request comes from another site's page")
    if "HTTP_SEC_FETCH_SITE" in request.META:
        try:
            request.get_host()  # a foreign name that resolves to this address is another site, too
        except DisallowedHost:
            raise CrossSite("the host name of this address is not in ALLOWED_HOSTS") from None


def permit(grant: Grant, user_id: UserKey) -> None:
    """Raises `UserForbidden`, in the same words whether there is such a user or not."""
    if not covers(grant, user_id):
        raise UserForbidden(f"this API key may not generate for user {user_id}")


def covers(grant: Grant, user_id: UserKey | None) -> bool:
    return grant.users is None or user_id in grant.users


def needs_no_session(page: Page) -> Callable[[Mapping[bytes, bytes]], bool]:
    """Whether an operators' page can be served without the middleware that knows a session."""

    def when(headers: Mapping[bytes, bytes]) -> bool:
        if b"x-api-key" in headers or _is_bearer(headers.get(b"authorization", b"")):
            return True
        if page == "pool" and tickets.HEADER in headers:
            return True
        try:
            return runtime.current().settings.access_to(page) != "staff"
        except RuntimeNotOpen:  # the view says so
            return True

    return when


def _is_bearer(authorization: bytes) -> bool:
    return authorization[: len(_SCHEME)].lower() == _SCHEME.encode()


async def require_operator(request: HttpRequest, page: Page) -> None:
    """Raises `NotFound`, `StaffOnly`, `Unauthorized` or `DatabaseUnavailable` for a caller who
    may not see an operators' page. The pool's also opens to the ticket of a page that shows it."""
    grant = await _grant_for(request, page, key_owner="a service's")
    if grant is not None and not grant.is_service:
        raise StaffOnly("this API key belongs to one user; the page needs a service's key")


async def require_reader(request: HttpRequest) -> None:
    """The same for the documentation, which is for everybody who has a key."""
    await _grant_for(request, "docs", key_owner="an")


async def _grant_for(request: HttpRequest, page: Page, *, key_owner: str) -> Grant | None:
    """Returns what the caller's key allows; None for staff, and where the page is open."""
    now = runtime.current()
    access = now.settings.access_to(page)
    if access == "open":
        return None
    if access == "off":
        raise NotFound("this page is switched off")
    if page == "pool" and tickets.is_shown(request.META):
        tickets.read("pool", request.META)
        return None
    key = _key_of(request.META)
    if key is not None:
        return await now.keys.recognise(key)
    user = await request.auser()
    if not (user.is_active and getattr(user, "is_staff", False)):
        raise StaffOnly(
            f"log in to the admin as a member of the staff, or send {key_owner} API key"
        )
    return None
