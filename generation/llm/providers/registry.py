"""The providers, and which of them the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from generation.llm.providers.anthropic.provider import Anthropic
from generation.llm.providers.openai.provider import OpenAI
from generation.llm.providers.own import named
from generation.llm.providers.simulated import Simulated

if TYPE_CHECKING:
    from generation.conf import Settings
    from generation.llm.providers.base import Provider

# To add a provider, follow the recipe in CONTRIBUTING.md.
# In the order in which LLM_PROVIDER=auto looks for one that it may choose.
PROVIDERS: dict[str, type[Provider]] = {
    Anthropic.name: Anthropic,
    OpenAI.name: OpenAI,
    Simulated.name: Simulated,
}


def find(settings: Settings, name: str) -> type[Provider]:
    """Returns ours, or the project's own. Raises `ValueError` if that can't be imported."""
    if name in PROVIDERS:
        return PROVIDERS[name]
    own: type[Provider] = named(name, settings.providers[name])
    return own


def default_provider(settings: Settings) -> str:
    """Returns the one to ask if neither the request nor the profile names one."""
    if settings.llm_provider != "auto":
        return settings.llm_provider
    return next(name for name, provider in PROVIDERS.items() if provider.is_configured(settings))


def named_providers(settings: Settings) -> dict[str, str]:
    """Returns each provider that may be asked, with the setting that names it."""
    return {
        default_provider(settings): "LLM_PROVIDER",
        **{target.provider: "LLM_ALLOWED" for target in settings.llm_allowed},
        **{target.provider: "LLM_MODELS" for target in settings.llm_models.values()},
        **{target.provider: "LLM_FALLBACKS" for target in settings.llm_fallbacks},
    }


def unused(settings: Settings) -> dict[str, str]:
    """Returns the settings that are for a provider that is never asked."""
    named = named_providers(settings)
    own = {f"PROVIDERS[{name!r}]": name for name in settings.providers if name not in named}
    return own | {
        field.upper(): name
        for name in PROVIDERS
        if name not in named
        for field in (f"{name}_api_key", f"{name}_base_url")
        if field in settings.model_fields_set and _is_given(getattr(settings, field))
    }


def _is_given(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def faults(settings: Settings) -> list[str]:
    """Returns why providers can't be called although settings name them; one sentence each."""
    default = default_provider(settings)
    found = []
    for name in settings.providers:
        try:
            find(settings, name)
        except ValueError as error:
            found.append(f"PROVIDERS[{name!r}]: {error}")
    if found:
        return found
    for name, setting in named_providers(settings).items():
        lacks = find(settings, name).lacks(settings, is_default=name == default)
        if lacks:
            found.append(f"{setting} names {name}, but {lacks}")
    return found
