"""The start page, at `/`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from generation import conf, user_keys
from generation.api import tickets
from generation.llm.providers.registry import default_provider

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

DEMO_USER = 1  # whom a stranger asks as while DEBUG is on


@require_safe
async def start(request: HttpRequest) -> HttpResponse:
    settings = conf.load()
    url = request.build_absolute_uri("api/v1/generate/1")
    curl = f"curl -X POST {shlex.quote(url)}"
    if settings.keys_required:
        curl += " -H 'Authorization: Bearer stc_…'"
    openai_url = request.build_absolute_uri("v1" if settings.keys_required else "u/1/v1")
    user = await request.auser()
    is_staff = user.is_active and getattr(user, "is_staff", False)
    context = {
        "curl": curl,
        "keyed": settings.keys_required,
        "openai_url": openai_url,
        "anthropic_url": openai_url.removesuffix("/v1"),
        "provider": default_provider(settings),
        "pool": settings.pool_access != "off",
        "metrics": settings.metrics_access != "off",
        "trial": _trial(user.pk if is_staff else None),
        "figures": _figures(settings.access_to("pool"), is_staff=is_staff),
    }
    return render(request, "project/start.html", context)


def _trial(staff: Any) -> dict[str, Any] | None:
    """Returns what lets a member of the staff, or anybody while DEBUG is on, ask the LLM.

    It costs money, so it needs a ticket: what the API asks of strangers stays as it is.
    """
    if staff is None and not django_settings.DEBUG:
        return None
    user_id = user_keys.key_of(staff or DEMO_USER)
    return {
        "url": reverse("staccato:generate", args=[user_id]),
        "ticket": tickets.issue("generate", user_id),
    }


def _figures(access: str, *, is_staff: bool) -> dict[str, str] | None:
    """Returns what lets the page show the pool, to those who may see it."""
    if access == "off" or (access == "staff" and not is_staff):
        return None
    return {"ticket": tickets.issue("pool") if access == "staff" else ""}
