"""The start page, at `/`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from django.shortcuts import render
from django.views.decorators.http import require_safe

from generation import conf
from generation.llm.providers.registry import default_provider

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


@require_safe
async def start(request: HttpRequest) -> HttpResponse:
    settings = conf.load()
    url = request.build_absolute_uri("api/v1/generate/1")
    curl = f"curl -X POST {shlex.quote(url)}"
    if settings.keys_required:
        curl += " -H 'Authorization: Bearer stc_…'"
    openai_url = request.build_absolute_uri("v1" if settings.keys_required else "u/1/v1")
    context = {
        "curl": curl,
        "keyed": settings.keys_required,
        "openai_url": openai_url,
        "anthropic_url": openai_url.removesuffix("/v1"),
        "provider": default_provider(settings),
        "pool": settings.pool_access != "off",
        "metrics": settings.metrics_access != "off",
    }
    return render(request, "project/start.html", context)
