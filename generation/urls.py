"""/api/v1, /livez, /readyz, /metrics: include these in a project's own urls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from django.db.transaction import non_atomic_requests
from django.urls import path

from generation import conf
from generation.api import auth as access
from generation.api import health
from generation.api.native.routes import api

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

api_patterns, api_app, api_namespace = api.urls

urlpatterns: list[Any] = [
    path("api/v1/", (api_patterns, api_app, api_namespace)),
    path("api/v1/<path:path>", health.not_found, name="api-not-found"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
]


def mark_hop_free(
    view: Callable[..., object],
    when: Callable[[Mapping[bytes, bytes]], bool] = lambda _headers: True,
) -> None:
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
_views["generate"].entrance = access.entering


def _open_or_with_key(page: Literal["pool", "metrics"]) -> Callable[[Mapping[bytes, bytes]], bool]:
    """Staff are known by their session, which needs the full middleware; a key needs none."""

    def when(headers: Mapping[bytes, bytes]) -> bool:
        return conf.load().access_to(page) != "staff" or access.shows_key(headers)

    return when


mark_hop_free(_views["pool"], _open_or_with_key("pool"))
mark_hop_free(_views["metrics"], _open_or_with_key("metrics"))
