"""The service: a process that is ours alone, and so its pages, collector and open files, too."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import django
from django.urls import get_resolver

from generation import conf
from generation.asgi import uvicorn_limits
from generation.asgi.application import Application
from generation.asgi.body import BodyLimits
from generation.asgi.bounded_pages import BoundedPages, NoPages
from generation.runtime.collector import rare_collections
from generation.runtime.process import Runtime
from generation.runtime.resources import raise_open_file_limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def get_service() -> Application:
    """Returns the ASGI application of a process that serves nothing but Staccato and its admin, or
    the part of both that STACCATO_SERVE names."""
    django.setup(set_prefix=False)
    uvicorn_limits.apply()
    get_resolver().url_patterns  # noqa: B018  # an error in the URLs shows now, not in a request
    settings = conf.load()
    limits = BodyLimits(settings)
    pages = NoPages(limits) if settings.serve == "api" else BoundedPages(limits)
    application = Application(_open, limits, settings.send_timeout, pages)
    application.serves_callers = settings.serve != "pages"
    application.serves_pages = settings.serve != "api"
    return application


@contextlib.asynccontextmanager
async def _open() -> AsyncIterator[Runtime]:
    raise_open_file_limit(conf.load().max_in_flight)
    async with Runtime.open() as runtime:
        with rare_collections():
            yield runtime
