"""/api/v1, /livez, /readyz, /metrics: include these in a project's own URLs."""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path

from generation.api import health
from generation.api.native.routes import api

urlpatterns: list[Any] = [
    path("api/v1/", api.urls),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    re_path(r"^(api/v1|livez|readyz|metrics)(/[\s\S]*)?$", health.not_found, name="api-not-found"),
]
