"""The settings of the LLM: whom to ask, for how long, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from generation.conf.base import Group
from generation.conf.fields import (
    OFFICIAL_OPENAI_URL,
    PROVIDERS,
    AnthropicUrl,
    ApiKey,
    DottedPath,
    Faults,
    Models,
    OpenAIUrl,
    OwnProviders,
    Prices,
    Range,
    Target,
    Targets,
    parse_targets,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class LlmSettings(Group):
    prompt_source: DottedPath = Field(
        "",
        description="Dotted path of a class that reads users' prompts, in place of the table of "
        "profiles: a `generation.PromptSource`.",
    )
    providers: OwnProviders = Field(
        {},
        description="LLM providers of your own, by name: dotted paths of classes that are each a "
        "`generation.Provider`, e.g. `house=yours.providers.House`.",
    )
    llm_provider: str = Field(
        "auto",
        description="`anthropic`, `openai`, `simulated`, or a name of STACCATO_PROVIDERS. `auto`: "
        "Anthropic if its key is set, else OpenAI if its key is set, else simulated while DEBUG is "
        "on. With DEBUG off, made-up answers must be asked for: `simulated`.",
    )
    llm_model: str = Field(
        "",
        max_length=200,
        description="Model to use if neither the request nor the profile names one. Default: the "
        "provider's (claude-sonnet-5-5, gpt-6-luna); a server of your own has none, so name one.",
    )
    llm_allowed: Targets = Field(
        (),
        description="Further `provider:model` pairs that a profile or a request may name, "
        "separated by commas.",
    )
    llm_models: Models = Field(
        {},
        description="Names under which clients may ask for a `provider:model`, e.g. "
        "`fast=anthropic:claude-haiku-5,smart=openai:gpt-6-luna`. The models of LLM_PROVIDER and "
        "LLM_ALLOWED may be asked for by their own names as well.",
    )
    llm_fallbacks: Targets = Field(
        (),
        description="`provider:model` pairs to try, in order, if the first choice fails; "
        "never for a caller's fault.",
    )
    llm_prices: Prices = Field(
        {},
        description="US dollars per million tokens of input, output and, if it differs, of input "
        "from the provider's cache, e.g. `openai:gpt-6-luna=2.5/10/0.25,openai:llama3=0/0`; "
        "without a model, of all of the provider's. They count before the prices that are known "
        "of the vendors. 0/0 is free; a model without a price is refused where a budget in dollars "
        "applies.",
    )
    llm_max_tokens: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Longest answer, in tokens, if neither the request nor the profile says.",
    )
    llm_timeout: float = Field(
        30,
        gt=0,
        le=3600,
        description="Total time for the LLM, with all attempts, waits and fallbacks.",
    )
    llm_attempt_timeout: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Time for one attempt, within the total. Default: two thirds of it.",
    )
    llm_stream_idle_timeout: float = Field(
        60,
        gt=0,
        le=3600,
        description="Longest silence of a provider in the middle of a streamed answer. Its first "
        "words must come within LLM_TIMEOUT.",
    )
    llm_stream_timeout: float = Field(
        600, gt=0, le=86_400, description="Total time for one streamed answer."
    )
    llm_connect_timeout: float = Field(
        5, gt=0, le=300, description="Time to reach the provider's server."
    )
    llm_max_attempts: int = Field(
        3, ge=1, le=20, description="Calls to one provider per request, including the first."
    )
    llm_max_concurrency: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Calls to one provider at once, per process; 0: no limit.",
    )
    llm_queue_timeout: float = Field(
        1, ge=0, le=300, description="Longest wait for one of those calls to end; then 503."
    )
    llm_max_reply_bytes: int = Field(
        4_194_304, ge=1024, le=1_073_741_824, description="Largest reply read from a provider."
    )
    llm_simulated_latency: Range = Field(
        (2, 8), description="How long the simulated provider takes: `low-high`, or one number."
    )
    llm_simulated_faults: Faults = Field(
        {},
        description="How often the simulated provider fails, e.g. "
        "`429=0.05,529=0.02,timeout=0.01`. Kinds: 429, 500, 503, 529, timeout, malformed, cut (it "
        "breaks off half-way), stall (it falls silent half-way).",
    )
    anthropic_api_key: ApiKey = Field(SecretStr(""), description="Key for Anthropic.")
    anthropic_base_url: AnthropicUrl = Field(
        "https://api.anthropic.com", description="Address of Anthropic's API."
    )
    openai_api_key: ApiKey = Field(
        SecretStr(""), description="Key for OpenAI, or for a server that speaks its protocol."
    )
    openai_base_url: OpenAIUrl = Field(
        OFFICIAL_OPENAI_URL,
        description="Address of the OpenAI-compatible API, with its `/v1` "
        "(vLLM, Ollama, llama.cpp, …).",
    )
    openai_max_tokens_field: Literal["auto", "max_completion_tokens", "max_tokens"] = Field(
        "auto",
        description="The server's name for the token limit. `auto`: max_completion_tokens at "
        "OpenAI's own address and at Azure's, max_tokens elsewhere.",
    )

    @field_validator("llm_provider")
    @classmethod
    def _check_provider(cls, name: str, info: ValidationInfo) -> str:
        known = ("auto", *_provider_names(info))
        if name not in known:
            raise ValueError(f"use one of {', '.join(known)}, or name a class in PROVIDERS")
        return name

    @field_validator("llm_allowed", "llm_models", "llm_fallbacks", "llm_prices")
    @classmethod
    def _check_targets(cls, value: Any, info: ValidationInfo) -> Any:
        targets: Iterable[Target] = value
        if isinstance(value, dict) and info.field_name == "llm_models":
            targets = value.values()
        for target in targets:
            target.checked(_provider_names(info))
        return value

    def read_targets(self, text: str) -> tuple[Target, ...]:
        """Raises `ValueError` if it names a provider that there is not."""
        known = (*PROVIDERS, *self.providers)
        return tuple(target.checked(known) for target in parse_targets(text))


def _provider_names(info: ValidationInfo) -> tuple[str, ...]:
    return (*PROVIDERS, *info.data.get("providers", ()))  # missing where it is at fault itself
