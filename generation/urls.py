"""/api/v1, /v1, /livez, /readyz, /metrics: include these in a project's own URLs."""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path

from generation.api import health
from generation.api.anthropic.routes import api as anthropic
from generation.api.native.routes import api as native
from generation.api.openai.routes import api as openai
from generation.api.openai.routes import not_found

# Clients of other vendors' protocols have a base URL and nothing else, so that may name the user.
_V1 = r"^(?:u/(?P<user_id>[1-9][0-9]{0,18})/)?v1/"

urlpatterns: list[Any] = [
    path("api/v1/", native.urls),
    re_path(f"{_V1}$", not_found),
    re_path(_V1, openai.urls),
    re_path(_V1, anthropic.urls),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    re_path(r"^(api/v1|livez|readyz|metrics)(/[\s\S]*)?$", health.not_found, name="api-not-found"),
    re_path(r"^(?:u/[^/]*/)?v1(/[\s\S]*)?$", not_found, name="v1-not-found"),
]
