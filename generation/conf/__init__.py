"""The settings of this process: `load()` is the only reader of `settings.STACCATO`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from generation.conf.fields import (
    PROVIDERS,
    ProviderName,
    Target,
    parse_boolean,
    parse_targets,
)
from generation.conf.settings import Settings, environment_name, parse

__all__ = [
    "PROVIDERS",
    "ProviderName",
    "Settings",
    "Target",
    "environment_name",
    "load",
    "parse",
    "parse_boolean",
    "parse_targets",
]


@lru_cache(maxsize=1)
def _parse_django_settings() -> Settings:
    return parse(getattr(django_settings, "STACCATO", {}))


def load() -> Settings:
    """The settings of this process, parsed once."""
    return _parse_django_settings()


@receiver(setting_changed)
def _forget(*, setting: str, **_kwargs: Any) -> None:
    """Tests may override settings."""
    if setting == "STACCATO":
        _parse_django_settings.cache_clear()
