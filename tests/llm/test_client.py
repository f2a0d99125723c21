"""The client asks the chosen target and reads its answer, in both dialects."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from generation import errors
from generation.conf import parse
from generation.llm.client import LLMClient
from generation.llm.providers.openai.provider import OpenAI
from generation.records import Usage
from tests.support.dialects import PROMPT, AnthropicDialect, OpenAIDialect
from tests.support.provider import Provider, says

# --- asking and reading ---------------------------------------------------------------------------


async def test_an_answer_is_read(client, server, dialect, prompt):
    async with client() as llm:
        outcome = await llm.complete(prompt)
    reply = outcome.require_reply()
    assert reply.text == "Hello."
    assert reply.usage == Usage(10, 20)
    assert (outcome.provider, outcome.model) == (dialect.name, dialect.model)
    assert (reply.stop_reason, reply.raw_reply) == ("end_turn", "")
    [attempt] = outcome.attempts
    assert (attempt.provider, attempt.model) == (dialect.name, dialect.model)
    assert (attempt.status, attempt.error) == (200, "")
    assert server.requests[0].path == dialect.path


async def test_anthropic_is_asked_as_its_api_wants(prompt):
    dialect = AnthropicDialect()
    async with (
        Provider(says(200, dialect.answer())).serve() as server,
        LLMClient.open(parse(dialect.settings(server.url))) as llm,
    ):
        (await llm.complete(prompt)).require_reply()
        (await llm.complete(replace(prompt, system=""))).require_reply()
    first, second = server.requests
    assert first.json == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 100,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Say hello."}],
        "stream": False,
    }
    assert "system" not in second.json
    assert first.headers["x-api-key"] == "canary-key-5f3a9d7e21"
    assert first.headers["anthropic-version"] == "2023-06-01"
    assert first.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("setting", "field"),
    [("auto", "max_tokens"), ("max_completion_tokens", "max_completion_tokens")],
)
async def test_openai_is_asked_as_its_api_wants(prompt, setting, field):
    dialect = OpenAIDialect()
    async with Provider(says(200, dialect.answer())).serve() as server:
        settings = dialect.settings(server.url, OPENAI_MAX_TOKENS_FIELD=setting)
        async with LLMClient.open(parse(settings)) as llm:
            (await llm.complete(prompt)).require_reply()
    [request] = server.requests
    assert request.json == {
        "model": "some-model",
        field: 100,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
        "stream": False,
    }
    assert request.headers["authorization"] == "Bearer canary-key-5f3a9d7e21"


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://API.OpenAI.com:443/v1/", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://api.openai.com.evil.example/v1", "max_tokens"),
        ("http://localhost:11434/v1", "max_tokens"),
        ("https://ours.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://ours.cognitiveservices.azure.com/openai/v1", "max_completion_tokens"),
        ("https://ours.services.ai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://openai.azure.com.evil.example/v1", "max_tokens"),
    ],
)
def test_the_limits_name_is_the_servers(url, field, prompt):
    provider = OpenAI(parse(OpenAIDialect().settings(url)), httpx.AsyncBaseTransport())
    body = provider.encode(prompt, "some-model")
    assert body[field] == 100
    assert len({"max_tokens", "max_completion_tokens"} & set(body)) == 1
    is_openais_own = field == "max_completion_tokens" and "azure" not in url
    assert (provider.price_list == "openai") is is_openais_own


async def test_a_server_that_wants_no_key_gets_none(prompt):
    dialect = OpenAIDialect()
    async with Provider(says(200, dialect.answer())).serve() as server:
        settings = dialect.settings(server.url, OPENAI_API_KEY="")
        async with LLMClient.open(parse(settings)) as llm:
            (await llm.complete(prompt)).require_reply()
    assert "authorization" not in server.requests[0].headers


async def test_cached_input_counts_as_input():
    usage = {
        "input_tokens": 5,
        "output_tokens": 1,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 7,
    }
    dialect = AnthropicDialect()
    async with (
        Provider(says(200, dialect.answer(usage=usage))).serve() as server,
        LLMClient.open(parse(dialect.settings(server.url))) as llm,
    ):
        reply = (await llm.complete(PROMPT)).require_reply()
    assert reply.usage == Usage(42, 1, cache_read_tokens=30, cache_write_tokens=7)


# --- choosing -------------------------------------------------------------------------------------


@asynccontextmanager
async def choosing(**settings):
    keys = {"ANTHROPIC_API_KEY": "some-key", "OPENAI_API_KEY": "other-key"}
    async with LLMClient.open(parse({**keys, **settings})) as llm:
        yield llm


async def test_the_default_target_is_the_settings():
    async with choosing() as llm:
        assert llm.choose("", "") == ("anthropic", "claude-sonnet-5-5")
    async with choosing(LLM_PROVIDER="openai") as llm:
        assert llm.choose("", "") == ("openai", "gpt-6-luna")
    async with choosing(LLM_MODEL="claude-opus-5-5") as llm:
        assert llm.choose("", "") == ("anthropic", "claude-opus-5-5")


async def test_only_what_is_allowed_can_be_chosen():
    async with choosing(LLM_ALLOWED="anthropic:claude-a, openai:gpt-b:8k, openai") as llm:
        assert llm.choose("anthropic", "") == ("anthropic", "claude-sonnet-5-5")
        assert llm.choose("", "claude-a") == ("anthropic", "claude-a")
        assert llm.choose("", "gpt-b:8k") == ("openai", "gpt-b:8k")
        assert llm.choose("openai", "") == ("openai", "gpt-b:8k")
        assert llm.choose("openai", "gpt-6-luna") == ("openai", "gpt-6-luna")
        for provider, model in [
            ("openai", "claude-a"),
            ("simulated", ""),
            ("", "gpt-5"),
            ("x", ""),
        ]:
            with pytest.raises(errors.ModelNotAllowed, match="openai:gpt-b:8k"):
                llm.choose(provider, model)


async def test_the_prompts_target_is_asked(client, server, dialect, prompt):
    async with client(LLM_ALLOWED=f"{dialect.name}:another") as llm:
        another = replace(prompt, provider=dialect.name, model="another")
        (await llm.complete(another)).require_reply()
    assert server.requests[0].json["model"] == "another"
