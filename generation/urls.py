"""/api/v1, /livez, /readyz, /metrics: include these in a project's own urls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.transaction import non_atomic_requests
from django.urls import path

from generation import conf, health
from generation.api import api

if TYPE_CHECKING:
    from collections.abc import Callable

api_patterns, api_app, api_namespace = api.urls

urlpatterns = [
    path("api/v1/", (api_patterns, api_app, api_namespace)),
    path("api/v1/<path:path>", health.not_found, name="api-not-found"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
]


def mark_hop_free(view: Callable[..., object]) -> None:
    """Let `asgi.py` serve this async view without middleware and thread hops.

    Such a view must not use the ORM, sessions or anything synchronous that waits.
    """
    view.hop_free = True  # type: ignore[attr-defined]
    non_atomic_requests(using=conf.load().database)(view)


_settings = conf.load()
_HOP_FREE = {"generate", "api-not-found", "livez", "readyz"}
# Staff are known by their session, which needs the full middleware.
if _settings.pool_access != "staff":
    _HOP_FREE.add("pool")
if _settings.metrics_access != "staff":
    _HOP_FREE.add("metrics")
for _pattern in [*api_patterns, *urlpatterns[1:]]:
    if _pattern.name in _HOP_FREE:
        mark_hop_free(_pattern.callback)
