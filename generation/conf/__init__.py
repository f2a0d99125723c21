"""The settings of this process: `load()` is the only reader of `settings.STACCATO`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from pydantic import SecretStr

from generation.conf.fields import (
    PROVIDERS,
    Price,
    ProviderName,
    Target,
    parse_boolean,
    parse_targets,
)
from generation.conf.settings import InvalidSettings, Settings, environment_name, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PROVIDERS",
    "InvalidSettings",
    "Price",
    "ProviderName",
    "Settings",
    "Target",
    "environment_name",
    "load",
    "parse",
    "parse_boolean",
    "parse_targets",
    "validate",
]


def parse(values: Mapping[str, Any]) -> Settings:
    """Returns the settings of a STACCATO dict, with the defaults that follow from Django's own.

    Raises `ImproperlyConfigured`.
    """
    try:
        settings = validate(values)
    except InvalidSettings as error:
        raise ImproperlyConfigured(str(error)) from None
    defaults: dict[str, Any] = {}
    if settings.api_keys_required is None:
        defaults["api_keys_required"] = not django_settings.DEBUG
    if not settings.pepper:
        defaults["api_key_pepper"] = SecretStr(django_settings.SECRET_KEY)
    return settings.model_copy(update=defaults)


@lru_cache(maxsize=1)
def load() -> Settings:
    """Returns the settings of this process, parsed once. Raises `ImproperlyConfigured`."""
    return parse(getattr(django_settings, "STACCATO", {}))


@receiver(setting_changed)
def _forget(*, setting: str, **_kwargs: Any) -> None:
    """Tests may override settings."""
    if setting in {"STACCATO", "DEBUG", "SECRET_KEY"}:
        load.cache_clear()
