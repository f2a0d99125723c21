"""What the service offers: the providers and models that a request or a profile may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation.conf import Target
from generation.errors import ModelNotAllowed
from generation.llm.providers import registry

if TYPE_CHECKING:
    from generation.conf import Settings


class Offer:
    """The default target first, then those of LLM_MODELS and LLM_ALLOWED, each with its model."""

    def __init__(self, settings: Settings) -> None:
        default = Target(registry.default_provider(settings), settings.llm_model)
        aliases = {n: with_model(settings, target) for n, target in settings.llm_models.items()}
        named = (with_model(settings, target) for target in (default, *settings.llm_allowed))
        self.targets = tuple(dict.fromkeys((*named, *aliases.values())))
        # What clients may ask for, in the order in which it is listed.
        self.models = dict(aliases)
        for target in self.targets:
            self.models.setdefault(target.model, target)
        self._by_target = {str(target): target for target in self.targets}

    def choose(self, provider: str, model: str) -> Target:
        """Returns the provider and model to ask; '' leaves the choice to the settings.

        Without a provider, the model may be a name of LLM_MODELS, or `provider:model`. Raises
        `ModelNotAllowed`.
        """
        if model and not provider:
            named = self.models.get(model) or self._by_target.get(model)
            if named is not None:
                return named
        for target in self.targets:
            if provider in {"", target.provider} and model in {"", target.model}:
                return target
        wanted = ":".join(filter(None, (provider, model)))
        offered = ", ".join(map(str, self.targets))
        raise ModelNotAllowed(f"{wanted} is not offered here; these are: {offered}")


def with_model(settings: Settings, target: Target) -> Target:
    """Returns the target with its provider's default model, if it names none."""
    default_model = registry.find(settings, target.provider).default_model
    return Target(target.provider, target.model or default_model)
