"""An API's own documentation: who may read it, and its document, which is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.openapi.views import openapi_json
from ninja.responses import Response

from generation.api.auth import needs_no_session, require_reader
from generation.asgi.lean import lean

View = Callable[..., HttpResponse]


def documented(view: Any) -> Any:
    """Ninja's `docs_decorator`, for the page and for the OpenAPI document that it shows."""
    if isinstance(view, partial) and view.func is openapi_json:
        return lean(when=needs_no_session("docs"))(_document(view.keywords["api"]))
    # The page is for a browser, and gets its security headers from the middleware.
    return lean(when=lambda _headers: False)(_page(view))


def _document(api: NinjaAPI) -> Any:
    @lru_cache(maxsize=4)  # one, unless the service is reached below several paths
    def build(prefix: str) -> bytes:
        return Response(api.get_openapi_schema(path_prefix=prefix)).content

    async def document(request: HttpRequest, **_of_the_path: str) -> HttpResponse:
        await require_reader(request)
        prefix = request.path.rpartition("/")[0] + "/"
        return HttpResponse(build(prefix), content_type="application/json")

    return document


def _page(view: View) -> Any:
    async def page(request: HttpRequest, **_of_the_path: str) -> HttpResponse:
        await require_reader(request)
        return view(request)

    return page
