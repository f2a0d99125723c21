"""Settings of the LLM: strict, and one line for each fault."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from generation.checks import check_settings
from generation.conf import parse
from generation.conf.fields import PROVIDERS
from generation.llm.providers import registry

ANTHROPIC = {"ANTHROPIC_API_KEY": "key-a"}
OPENAI = {"OPENAI_API_KEY": "key-o"}


@pytest.mark.parametrize(
    ("values", "provider"),
    [
        ({}, "simulated"),
        (ANTHROPIC, "anthropic"),
        (OPENAI, "openai"),
        (ANTHROPIC | OPENAI, "anthropic"),
        (ANTHROPIC | {"LLM_PROVIDER": "simulated"}, "simulated"),
        (ANTHROPIC | OPENAI | {"LLM_PROVIDER": "openai"}, "openai"),
        ({"ANTHROPIC_API_KEY": ""}, "simulated"),
    ],
)
def test_the_provider_follows_from_the_keys(values, provider):
    assert registry.default_provider(parse(values)) == provider


LOCAL = {"OPENAI_BASE_URL": "http://localhost:11434/v1"}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"LLM_PROVIDER": "anthropic"},
            "LLM_PROVIDER names anthropic, but ANTHROPIC_API_KEY is not set",
        ),
        ({"LLM_PROVIDER": "openai"}, "LLM_PROVIDER names openai, but OPENAI_API_KEY is not set"),
        (
            ANTHROPIC | {"LLM_FALLBACKS": "openai:gpt-b"},
            "LLM_FALLBACKS names openai, but OPENAI_API_KEY is not set",
        ),
        (
            {"LLM_ALLOWED": "anthropic:a"},
            "LLM_ALLOWED names anthropic, but ANTHROPIC_API_KEY is not set",
        ),
        (
            {"LLM_PROVIDER": "openai"} | LOCAL,
            "LLM_PROVIDER names openai, but LLM_MODEL is not set (models at OPENAI_BASE_URL vary)",
        ),
    ],
)
def test_a_provider_that_is_named_but_cannot_be_called_is_a_fault(values, fault, settings):
    assert registry.faults(parse(values)) == [fault]
    settings.STACCATO = values
    [error] = check_settings()
    assert (error.id, error.msg) == ("staccato.E001", fault)


def test_every_name_that_the_settings_know_is_a_provider():
    assert tuple(registry.PROVIDERS) == PROVIDERS
    assert all(name == provider.name for name, provider in registry.PROVIDERS.items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"LLM_PROVIDER": "gemini"}, "LLM_PROVIDER='gemini': use one of auto, anthropic"),
        ({"LLM_FALLBACKS": "gpt-4"}, "LLM_FALLBACKS='gpt-4': use provider:model"),
        ({"LLM_SIMULATED_LATENCY": "8-2"}, "LLM_SIMULATED_LATENCY='8-2'"),
        ({"LLM_SIMULATED_LATENCY": "x"}, "LLM_SIMULATED_LATENCY='x'"),
        ({"LLM_SIMULATED_FAULTS": "429"}, "LLM_SIMULATED_FAULTS='429'"),
        ({"LLM_SIMULATED_FAULTS": "429=2"}, "between 0 and 1"),
        ({"LLM_SIMULATED_FAULTS": "429=nan"}, "between 0 and 1"),
        ({"LLM_SIMULATED_FAULTS": "429=.6,500=.6"}, "between 0 and 1"),
        ({"LLM_SIMULATED_FAULTS": "429=.1,429=.1"}, "429 is given twice"),
        ({"LLM_SIMULATED_FAULTS": "fire=.1"}, "'cut' or 'stall'"),
        ({"LLM_TIMEOUT": "0"}, "LLM_TIMEOUT='0'"),
        ({"LLM_MAX_ATTEMPTS": "0"}, "LLM_MAX_ATTEMPTS='0'"),
        ({"ANTHROPIC_BASE_URL": "api.anthropic.com"}, "it must start with http://"),
        ({"ANTHROPIC_BASE_URL": "https://x/?a=b"}, "it must not contain a user"),
        ({"OPENAI_BASE_URL": "http://x:port"}, "it is not a URL"),
        ({"OPENAI_BASE_URL": "http://999.1.1.1"}, "it is not a URL"),
        ({"ANTHROPIC_API_KEY": "two words"}, "ANTHROPIC_API_KEY=(hidden)"),
        ({"ANTHROPIC_API_KEY": "line\r\nx-evil: 1"}, "ANTHROPIC_API_KEY=(hidden)"),
        ({"OPENAI_API_KEY": "schlüssel"}, "OPENAI_API_KEY=(hidden)"),
    ],
)
def test_a_fault_is_one_line_that_names_it(values, message):
    with pytest.raises(ImproperlyConfigured) as caught:
        parse(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    for secret in ("two words", "x-evil", "schlüssel"):
        assert secret not in str(caught.value)


def test_a_password_in_an_address_is_refused_and_not_quoted():
    with pytest.raises(ImproperlyConfigured) as caught:
        parse({"OPENAI_BASE_URL": "https://user:hunter2@gateway/v1"})
    assert "hunter2" not in str(caught.value)


def test_a_local_server_needs_no_key():
    settings = parse({"LLM_PROVIDER": "openai", "LLM_MODEL": "llama3:8b"} | LOCAL)
    assert registry.faults(settings) == []


def test_lists_and_rates_are_read():
    settings = parse(
        {
            "LLM_FALLBACKS": " simulated ",
            "LLM_ALLOWED": "simulated:a,simulated:b:c",
            "LLM_SIMULATED_FAULTS": "429=0.05, timeout=.01",
            "LLM_SIMULATED_LATENCY": "3",
        }
    )
    assert settings.llm_fallbacks == (("simulated", ""),)
    assert settings.llm_allowed == (("simulated", "a"), ("simulated", "b:c"))
    assert settings.llm_simulated_faults == {"429": 0.05, "timeout": 0.01}
    assert settings.llm_simulated_latency == (3, 3)
