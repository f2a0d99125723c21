"""/api/v1, /livez, /readyz, /metrics: include these in a project's own urls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.transaction import non_atomic_requests
from django.urls import path

from generation import conf, health
from generation.api import api

if TYPE_CHECKING:
    from collections.abc import Callable

api_patterns, api_app, api_namespace = api.urls

urlpatterns: list[Any] = [
    path("api/v1/", (api_patterns, api_app, api_namespace)),
    path("api/v1/<path:path>", health.not_found, name="api-not-found"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
]


def mark_hop_free(view: Callable[..., object], when: Callable[[], bool] = lambda: True) -> None:
    """Let `asgi.py` serve this async view without middleware and thread hops.

    Such a view must not use the ORM, sessions or anything synchronous that waits.
    """
    view.hop_free = when  # type: ignore[attr-defined]
    non_atomic_requests(using=conf.load().database)(view)


_views: dict[str, Any] = {
    pattern.name: pattern.callback for pattern in [*api_patterns, *urlpatterns[1:]]
}
for _name in ("generate", "api-not-found", "livez", "readyz"):
    mark_hop_free(_views[_name])
# Staff are known by their session, which needs the full middleware.
mark_hop_free(_views["pool"], when=lambda: conf.load().pool_access != "staff")
mark_hop_free(_views["metrics"], when=lambda: conf.load().metrics_access != "staff")
