"""The live page: the pool's figures, drawn once a second by a script that asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.views import redirect_to_login
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_safe

from generation.api import tickets
from generation.asgi.lean import lean
from generation.errors import NotFound, StaffOnly
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


# For a browser: the middleware knows its session, and adds the content security policy.
@lean(when=lambda _headers: False)
@require_safe
async def page(request: HttpRequest) -> HttpResponse:
    """For those who may see the pool, as STACCATO_POOL_ACCESS says. Raises `NotFound` or
    `StaffOnly`."""
    access = runtime.current().settings.access_to("pool")
    if access == "off":
        raise NotFound("this page is switched off")
    if access == "staff":
        user = await request.auser()
        if not user.is_authenticated and (login := _address("admin:login")):
            return redirect_to_login(request.get_full_path(), login)
        if not (user.is_active and getattr(user, "is_staff", False)):
            raise StaffOnly("this page is for members of the staff")
    context = {
        "ticket": tickets.issue("pool") if access == "staff" else "",
        "start": _address("start"),
        "admin": _address("admin:index"),
    }
    return render(request, "generation/live.html", context)


def _address(name: str) -> str:
    """Returns '' for a page that the project does not have."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""
