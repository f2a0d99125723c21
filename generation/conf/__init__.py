"""The settings of this process: `load()` is the only reader of `settings.STACCATO`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from pydantic import SecretStr

from generation.conf.fields import (
    PROVIDERS,
    Price,
    Target,
    parse_boolean,
    parse_otel_pairs,
    parse_targets,
)
from generation.conf.settings import Settings, environment_name
from generation.conf.validation import InvalidSettings, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PROVIDERS",
    "InvalidSettings",
    "Price",
    "Settings",
    "Target",
    "environment_name",
    "load",
    "parse",
    "parse_boolean",
    "parse_otel_pairs",
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
    if not Path(settings.journal_dir).is_absolute():
        defaults["journal_dir"] = _below_base(settings.journal_dir)
    return settings.model_copy(update=defaults)


def _below_base(folder: str) -> str:
    """All processes of a project mean the same folder, wherever they were started."""
    base = getattr(django_settings, "BASE_DIR", None)
    if base is None:
        raise ImproperlyConfigured(
            f"STACCATO_JOURNAL_DIR={folder!r} is not a whole path, and your settings have no"
            " BASE_DIR that it could begin at"
        )
    return str(Path(base) / folder)


@lru_cache(maxsize=1)
def load() -> Settings:
    """Returns the settings of this process, parsed once. Raises `ImproperlyConfigured`."""
    return parse(getattr(django_settings, "STACCATO", {}))


@receiver(setting_changed)
def _forget(*, setting: str, **_kwargs: Any) -> None:
    """Tests may override settings."""
    if setting in {"STACCATO", "DEBUG", "SECRET_KEY"}:
        load.cache_clear()
