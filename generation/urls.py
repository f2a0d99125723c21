"""/api/v1, /v1, /livez, /readyz, /metrics: include these in a project's own URLs, at any prefix.

They take their own addresses and nothing else: what follows them is asked next.
"""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path

from generation import user_keys
from generation.api import health, live, replay
from generation.api.anthropic.routes import api as anthropic
from generation.api.native.routes import api as native
from generation.api.openai.routes import api as openai

# Clients of other vendors' protocols have a base URL and nothing else, so that may name the user.
_V1 = rf"^(?:u/(?P<user_id>{user_keys.pattern()})/)?v1/"

urlpatterns: list[Any] = [
    path("api/v1/live", live.page, name="staccato-live"),
    path("api/v1/generations/<uuid:generation_id>/replay", replay.replay, name="staccato-replay"),
    path("api/v1/", native.urls),
    re_path(_V1, openai.urls),
    re_path(_V1, anthropic.urls),
    path("livez", health.livez, name="staccato-livez"),
    path("readyz", health.readyz, name="staccato-readyz"),
    path("metrics", health.metrics, name="staccato-metrics"),
]
