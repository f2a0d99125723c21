"""Fallbacks and circuits: which provider is asked next, and when none is."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest

from generation import errors
from generation.conf import parse
from generation.llm.client import LLMClient
from tests.support.dialects import PROMPT, AnthropicDialect, OpenAIDialect, slugs
from tests.support.ports import free_port
from tests.support.provider import Provider, drips, hangs, says


@asynccontextmanager
async def two_providers(**settings):
    """Anthropic first, OpenAI as the fallback."""
    first, second = AnthropicDialect(), OpenAIDialect()
    async with (
        Provider(says(200, first.answer("first"))).serve() as one,
        Provider(says(200, second.answer("second"))).serve() as two,
    ):
        values = {
            **first.settings(one.url),
            "OPENAI_BASE_URL": two.url,
            "OPENAI_API_KEY": "other-key",
            "LLM_FALLBACKS": "openai:some-model",
            **settings,
        }
        async with LLMClient.open(parse(values)) as llm:
            yield llm, one, two


async def test_the_fallback_is_left_in_peace_while_the_first_answers():
    async with two_providers() as (llm, _, two):
        assert (await llm.complete(PROMPT)).require_reply().text == "first"
        assert two.requests == []


async def test_the_fallback_answers_when_the_first_is_exhausted():
    async with two_providers(LLM_MAX_ATTEMPTS=2) as (llm, one, _):
        one.behave = says(500, b"", retry_after="0")
        outcome = await llm.complete(PROMPT)
    assert outcome.require_reply().text == "second"
    assert (outcome.provider, outcome.model) == ("openai", "some-model")
    assert [(a.provider, a.status) for a in outcome.attempts] == [
        ("anthropic", 500),
        ("anthropic", 500),
        ("openai", 200),
    ]


@pytest.mark.parametrize("status", [503, 529])
async def test_an_overloaded_provider_is_left_for_the_fallback_at_once(status):
    async with two_providers() as (llm, one, _):
        one.behave = says(status, b"")
        assert (await llm.complete(PROMPT)).require_reply().text == "second"
        assert len(one.requests) == 1


async def test_a_drip_does_not_eat_the_fallbacks_share():
    async with two_providers(LLM_TIMEOUT=9, LLM_ATTEMPT_TIMEOUT=0.3) as (llm, one, _):
        one.behave = drips
        assert (await llm.complete(PROMPT)).require_reply().text == "second"


def slow_failure(seconds):
    async def behave(exchange):
        await asyncio.sleep(seconds)
        await exchange.reply(500, b"")

    return behave


@pytest.mark.parametrize(
    "behaviour",
    [says(429, b"", retry_after="4.3"), slow_failure(2.7)],
    ids=["a long Retry-After", "slow failures"],
)
async def test_retries_do_not_eat_the_fallbacks_share(behaviour):
    async with two_providers(LLM_TIMEOUT=4.5) as (llm, one, two):
        one.behave = behaviour
        two.behave = waits_a_little
        assert (await llm.complete(PROMPT)).require_reply().text == "second"


async def waits_a_little(exchange):
    await asyncio.sleep(0.3)
    await exchange.reply(200, json.dumps(OpenAIDialect().answer("second")).encode())


async def test_each_fallback_has_its_share_however_many_hang_before_it(monkeypatch):
    # A busy machine's stalls would lengthen the first two by half a second each.
    monkeypatch.setattr("generation.timing.GRACE_S", 0.0)
    settings = {"LLM_FALLBACKS": "openai:some-model,simulated", "LLM_SIMULATED_LATENCY": "0"}
    async with two_providers(LLM_TIMEOUT=6, **settings) as (llm, one, two):
        one.behave = two.behave = hangs
        outcome = await llm.complete(PROMPT)
    assert outcome.reply is not None
    assert slugs(outcome.attempts) == ["llm-timed-out", "llm-timed-out", ""]


async def test_bad_credentials_are_an_alarm_and_the_fallback_answers(caplog):
    async with two_providers() as (llm, one, _):
        one.behave = says(401, b'{"error": "no credit"}')
        for _ in range(3):
            assert (await llm.complete(PROMPT)).require_reply().text == "second"
    alarms = [r for r in caplog.records if r.name.startswith("generation.")]
    assert [record.levelno for record in alarms] == [logging.ERROR]
    assert len(alarms) == 1, "one alarm a minute wakes someone; one per call buries them"
    said = alarms[0].getMessage()
    assert f"{one.url}/v1/messages" in said, "who has to act wants to know what was asked"
    assert "'no credit'" in said


async def test_a_provider_that_is_not_there_is_told_to_operators_with_address_and_cause(caplog):
    url = f"http://127.0.0.1:{free_port()}"
    settings = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": url, "LLM_MAX_ATTEMPTS": 2}
    async with LLMClient.open(parse(settings)) as llm:
        with pytest.raises(errors.LLMUnreachable) as caught:
            (await llm.complete(PROMPT)).require_reply()
    assert url not in caught.value.detail, "addresses are none of a caller's business"
    [message, rest] = [r.getMessage() for r in caplog.records if r.name.startswith("generation.")]
    assert "1 more calls failed" in rest
    assert f"anthropic at {url}/v1/messages: " in message
    assert "refused" in message


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_callers_fault_is_never_sent_to_the_fallback(status):
    async with two_providers() as (llm, one, two):
        one.behave = says(status, b"")
        with pytest.raises(errors.LLMRefused):
            (await llm.complete(PROMPT)).require_reply()
        assert two.requests == []


async def test_a_declined_prompt_is_never_sent_to_the_fallback():
    async with two_providers() as (llm, one, two):
        one.behave = says(200, AnthropicDialect().refusal())
        with pytest.raises(errors.LLMRefused):
            (await llm.complete(PROMPT)).require_reply()
        assert two.requests == []


async def test_another_model_is_asked_after_an_empty_answer():
    async with two_providers() as (llm, one, _):
        one.behave = says(200, AnthropicDialect().answer(content=[]))
        assert (await llm.complete(PROMPT)).require_reply().text == "second"
        assert len(one.requests) == 1


async def test_when_all_fail_the_last_error_tells_of_every_attempt():
    async with two_providers(LLM_MAX_ATTEMPTS=1) as (llm, one, two):
        one.behave = says(500, b"")
        two.behave = says(429, b"", retry_after="7200")
        outcome = await llm.complete(PROMPT)
    assert isinstance(outcome.error, errors.LLMRateLimited)
    assert [(a.provider, a.status) for a in outcome.attempts] == [
        ("anthropic", 500),
        ("openai", 429),
    ]
    assert outcome.provider == "openai"


async def test_an_open_circuit_sends_everyone_to_the_fallback_at_once():
    async with two_providers(LLM_MAX_ATTEMPTS=1) as (llm, one, _):
        one.behave = says(500, b"")
        for _ in range(10):
            (await llm.complete(PROMPT)).require_reply()
        sent = len(one.requests)
        outcome = await llm.complete(PROMPT)
        assert outcome.require_reply().text == "second"
        assert slugs(outcome.attempts) == ["llm-circuit-open", ""]
        assert len(one.requests) == sent


async def test_an_open_circuit_without_fallback_is_a_503_with_retry_after(
    client, server, dialect, prompt
):
    server.behave = says(500, dialect.error("other"))
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        for _ in range(10):
            with pytest.raises(errors.LLMUnreachable):
                (await llm.complete(prompt)).require_reply()
        with pytest.raises(errors.LLMCircuitOpen) as caught:
            (await llm.complete(prompt)).require_reply()
    assert caught.value.status == 503
    assert int(caught.value.retry_after_header) >= 1
    assert len(server.requests) == 10


async def test_rate_limits_do_not_open_the_circuit(client, server, dialect, prompt):
    server.behave = says(429, dialect.error("limited"), retry_after="9999")
    async with client() as llm:
        for _ in range(30):
            with pytest.raises(errors.LLMRateLimited):
                (await llm.complete(prompt)).require_reply()
    assert len(server.requests) == 30
