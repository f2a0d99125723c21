"""System checks of this deployment."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Concern


# A deployment check, so that collectstatic and `check` work without a secret and a database.
@register("staccato", deploy=True)
def check_production(**_kwargs: Any) -> list[CheckMessage]:
    if settings.DEBUG:
        return []
    found: list[CheckMessage] = []
    if settings.SECRET_KEY == settings.INSECURE_SECRET_KEY:
        found.append(
            Error(
                "SECRET_KEY is not set and DEBUG is off.",
                hint="Set SECRET_KEY to 50 or more random characters, or DEBUG=1 for development.",
                id="project.E001",
            )
        )
    if not settings.DATABASE_URL:
        found.append(
            Error(
                "DATABASE_URL is not set and DEBUG is off.",
                hint="Set DATABASE_URL=postgresql://user:password@host/name; the embedded"
                " server is for development.",
                id="project.E002",
            )
        )
    return found


@register("staccato")
def check_spelling(**_kwargs: Any) -> list[CheckMessage]:
    return [
        Concern(
            f"{name} in the environment is not a setting.",
            hint=f"Did you mean {meant}?",
            id="project.W002",
        )
        for name, meant in settings.MISSPELT.items()
    ]


@register(Tags.security, deploy=True)
def check_forwarding(**_kwargs: Any) -> list[CheckMessage]:
    if os.environ.get("FORWARDED_ALLOW_IPS", "").strip() != "*":
        return []
    return [
        Concern(
            "FORWARDED_ALLOW_IPS=* lets every client choose the address that we see.",
            hint="Unset it, and name your proxies in TRUSTED_PROXIES.",
            id="project.W001",
        )
    ]
