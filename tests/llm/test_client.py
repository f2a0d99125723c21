"""The client's promises, against a real server, in both dialects."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from generation import errors
from generation.conf import parse
from generation.llm.client import LLMClient
from generation.llm.providers.openai import OpenAI
from generation.records import Prompt, Usage
from tests.llm.dialects import AnthropicDialect, OpenAIDialect
from tests.llm.provider_server import ProviderServer, drips, hangs, resets, says, waits_for

PROMPT = Prompt(text="Say hello.", system="", provider="", model="", max_tokens=100)


def slugs(attempts):
    return [attempt.error for attempt in attempts]


# --- asking and reading ---------------------------------------------------------------------


async def test_an_answer_is_read(client, server, dialect, prompt):
    async with client() as llm:
        reply = await llm.complete(prompt)
    assert reply.text == "Hello."
    assert reply.usage == Usage(10, 20)
    assert (reply.provider, reply.model) == (dialect.name, dialect.model)
    assert (reply.stop_reason, reply.raw_reply) == ("end_turn", "")
    [attempt] = reply.attempts
    assert (attempt.provider, attempt.model) == (dialect.name, dialect.model)
    assert (attempt.status, attempt.error) == (200, "")
    assert server.requests[0].path == dialect.path


async def test_anthropic_is_asked_as_its_api_wants(prompt):
    dialect = AnthropicDialect()
    async with (
        ProviderServer(says(200, dialect.answer())).serve() as server,
        LLMClient.open(parse(dialect.settings(server.url))) as llm,
    ):
        await llm.complete(prompt)
        await llm.complete(replace(prompt, system=""))
    first, second = server.requests
    assert first.json == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 100,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Say hello."}],
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
    async with ProviderServer(says(200, dialect.answer())).serve() as server:
        settings = dialect.settings(server.url, OPENAI_MAX_TOKENS_FIELD=setting)
        async with LLMClient.open(parse(settings)) as llm:
            await llm.complete(prompt)
    [request] = server.requests
    assert request.json == {
        "model": "some-model",
        field: 100,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
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
    ],
)
def test_the_limits_name_is_the_servers(url, field, prompt):
    provider = OpenAI(parse(OpenAIDialect().settings(url)), httpx.AsyncBaseTransport())
    assert provider.encode(prompt, "some-model")[field] == 100
    assert (provider.price_list == "openai") is (field == "max_completion_tokens")


async def test_a_server_that_wants_no_key_gets_none(prompt):
    dialect = OpenAIDialect()
    async with ProviderServer(says(200, dialect.answer())).serve() as server:
        settings = dialect.settings(server.url, OPENAI_API_KEY="")
        async with LLMClient.open(parse(settings)) as llm:
            await llm.complete(prompt)
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
        ProviderServer(says(200, dialect.answer(usage=usage))).serve() as server,
        LLMClient.open(parse(dialect.settings(server.url))) as llm,
    ):
        reply = await llm.complete(PROMPT)
    assert reply.usage == Usage(42, 1, cache_read_tokens=30, cache_write_tokens=7)


# --- retries --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_a_passing_failure_is_tried_again(client, server, dialect, prompt, status):
    server.script = [says(status, dialect.error("other"), retry_after="0")]
    async with client() as llm:
        reply = await llm.complete(prompt)
    assert [attempt.status for attempt in reply.attempts] == [status, 200]


@pytest.mark.parametrize("behaviour", [resets, says(200, b"{}")], ids=["reset", "bad reply"])
async def test_a_broken_exchange_is_tried_again(client, server, prompt, behaviour):
    server.script = [behaviour]
    async with client() as llm:
        assert (await llm.complete(prompt)).text == "Hello."
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.LLMRefused),
        (401, errors.LLMAuthentication),
        (402, errors.LLMMisconfigured),
        (403, errors.LLMAuthentication),
        (404, errors.LLMMisconfigured),
        (413, errors.LLMRefused),
        (307, errors.LLMMisconfigured),
    ],
)
async def test_a_lasting_failure_is_not_tried_again(client, server, dialect, status, kind):
    server.behave = says(status, dialect.error("other"), location=server.url)
    async with client() as llm:
        with pytest.raises(kind) as caught:
            await llm.complete(PROMPT)
    assert len(server.requests) == 1
    assert caught.value.status_code == status
    assert [attempt.status for attempt in caught.value.attempts] == [status]


async def test_attempts_are_bounded(client, server, dialect, prompt):
    server.behave = says(500, dialect.error("other"), retry_after="0")
    async with client(LLM_MAX_ATTEMPTS=3) as llm:
        with pytest.raises(errors.LLMUnreachable) as caught:
            await llm.complete(prompt)
    assert len(server.requests) == 3
    assert slugs(caught.value.attempts) == ["llm-unreachable"] * 3
    assert (caught.value.provider, caught.value.model) == (dialect.name, dialect.model)


async def test_the_provider_can_forbid_a_retry(client, server, dialect, prompt):
    server.behave = says(500, dialect.error("other"), x_should_retry="false")
    async with client() as llm:
        with pytest.raises(errors.LLMUnreachable):
            await llm.complete(prompt)
    assert len(server.requests) == 1


async def test_retry_after_is_waited_for(client, server, dialect, prompt):
    server.script = [says(429, dialect.error("limited"), retry_after_ms="300")]
    async with client() as llm:
        began = time.monotonic()
        await llm.complete(prompt)
    assert 0.3 <= time.monotonic() - began < 1.5


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_retry_after_beyond_the_deadline_is_passed_on_at_once(
    client, server, dialect, prompt, status
):
    server.behave = says(status, dialect.error("other"), retry_after="3600")
    async with client() as llm, asyncio.timeout(5):  # it must not sleep: waiting can't help
        with pytest.raises(errors.LLMError) as caught:
            await llm.complete(prompt)
    assert caught.value.status == (429 if status == 429 else 503)
    assert caught.value.retry_after_header == "3600"
    assert len(server.requests) == 1


async def test_one_idempotency_key_across_attempts():
    dialect = OpenAIDialect()
    async with ProviderServer(says(200, dialect.answer())).serve() as server:
        server.script = [says(500, b"", retry_after="0")]
        async with LLMClient.open(parse(dialect.settings(server.url))) as llm:
            await llm.complete(PROMPT)
            await llm.complete(PROMPT)
    first, again, other = (request.headers["idempotency-key"] for request in server.requests)
    assert first == again
    assert first != other


# --- deadlines ------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [hangs, drips])
async def test_the_deadline_holds_against_silence_and_drips(client, server, prompt, behaviour):
    server.behave = behaviour
    async with client(LLM_TIMEOUT=1, LLM_ATTEMPT_TIMEOUT=5) as llm:
        began = time.monotonic()
        with pytest.raises(errors.LLMTimedOut) as caught:
            await llm.complete(prompt)
    assert abs(time.monotonic() - began - 1) < 0.5
    assert caught.value.fate == "timed_out"
    await server.until(lambda: server.connected == 0, "closing of the connection")


async def test_one_attempt_has_a_bound_of_its_own(client, server, prompt):
    server.script = [drips]
    async with client(LLM_TIMEOUT=10, LLM_ATTEMPT_TIMEOUT=0.5) as llm:
        reply = await llm.complete(prompt)
    assert slugs(reply.attempts) == ["llm-timed-out", ""]
    assert abs(reply.attempts[0].ms - 500) < 500


async def test_the_deadline_is_over_all_attempts(client, server, prompt):
    server.behave = hangs
    async with client(LLM_TIMEOUT=1, LLM_ATTEMPT_TIMEOUT=0.3, LLM_MAX_ATTEMPTS=20) as llm:
        began = time.monotonic()
        with pytest.raises(errors.LLMTimedOut):
            await llm.complete(prompt)
    assert time.monotonic() - began < 1.5


# --- fallbacks ------------------------------------------------------------------------------


@asynccontextmanager
async def two_providers(**settings):
    """Anthropic first, OpenAI as the fallback."""
    first, second = AnthropicDialect(), OpenAIDialect()
    async with (
        ProviderServer(says(200, first.answer("first"))).serve() as one,
        ProviderServer(says(200, second.answer("second"))).serve() as two,
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
        assert (await llm.complete(PROMPT)).text == "first"
        assert two.requests == []


async def test_the_fallback_answers_when_the_first_is_exhausted():
    async with two_providers(LLM_MAX_ATTEMPTS=2) as (llm, one, _):
        one.behave = says(500, b"", retry_after="0")
        reply = await llm.complete(PROMPT)
    assert (reply.text, reply.provider, reply.model) == ("second", "openai", "some-model")
    assert [(a.provider, a.status) for a in reply.attempts] == [
        ("anthropic", 500),
        ("anthropic", 500),
        ("openai", 200),
    ]


@pytest.mark.parametrize("status", [503, 529])
async def test_an_overloaded_provider_is_left_for_the_fallback_at_once(status):
    async with two_providers() as (llm, one, _):
        one.behave = says(status, b"")
        assert (await llm.complete(PROMPT)).text == "second"
        assert len(one.requests) == 1


async def test_a_drip_does_not_eat_the_fallbacks_share():
    async with two_providers(LLM_TIMEOUT=3, LLM_ATTEMPT_TIMEOUT=0.5) as (llm, one, _):
        one.behave = drips
        began = time.monotonic()
        assert (await llm.complete(PROMPT)).text == "second"
        assert time.monotonic() - began < 1.5


def slow_failure(seconds):
    async def behave(exchange):
        await asyncio.sleep(seconds)
        await exchange.reply(500, b"")

    return behave


@pytest.mark.parametrize(
    "behaviour",
    [says(429, b"", retry_after="1.4"), slow_failure(0.9)],
    ids=["a long Retry-After", "slow failures"],
)
async def test_retries_do_not_eat_the_fallbacks_share(behaviour):
    async with two_providers(LLM_TIMEOUT=1.5) as (llm, one, two):
        one.behave = behaviour
        two.behave = waits_a_little
        assert (await llm.complete(PROMPT)).text == "second"


async def waits_a_little(exchange):
    await asyncio.sleep(0.3)
    await exchange.reply(200, json.dumps(OpenAIDialect().answer("second")).encode())


async def test_each_fallback_has_its_share_however_many_hang_before_it():
    settings = {"LLM_FALLBACKS": "openai:some-model,simulated", "LLM_SIMULATED_LATENCY": "0"}
    async with two_providers(LLM_TIMEOUT=1, **settings) as (llm, one, two):
        one.behave = two.behave = hangs
        reply = await llm.complete(PROMPT)
    assert slugs(reply.attempts) == ["llm-timed-out", "llm-timed-out", ""]


async def test_bad_credentials_are_an_alarm_and_the_fallback_answers(caplog):
    async with two_providers() as (llm, one, _):
        one.behave = says(401, b'{"error": "no credit"}')
        for _ in range(3):
            assert (await llm.complete(PROMPT)).text == "second"
    alarms = [r for r in caplog.records if r.name.startswith("generation.")]
    assert [record.levelno for record in alarms] == [logging.ERROR]
    assert len(alarms) == 1, "one alarm a minute wakes someone; one per call buries them"
    said = alarms[0].getMessage()
    assert f"{one.url}/v1/messages" in said, "who has to act wants to know what was asked"
    assert '{"error": "no credit"}' in said


async def test_a_provider_that_is_not_there_is_told_to_operators_with_address_and_cause(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    settings = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": url, "LLM_MAX_ATTEMPTS": 2}
    async with LLMClient.open(parse(settings)) as llm:
        with pytest.raises(errors.LLMUnreachable) as caught:
            await llm.complete(PROMPT)
    assert url not in caught.value.detail, "addresses are none of a caller's business"
    (told,) = [r.getMessage() for r in caplog.records if r.name.startswith("generation.")]
    assert f"anthropic at {url}/v1/messages: " in told
    assert "refused" in told


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_callers_fault_is_never_sent_to_the_fallback(status):
    async with two_providers() as (llm, one, two):
        one.behave = says(status, b"")
        with pytest.raises(errors.LLMRefused):
            await llm.complete(PROMPT)
        assert two.requests == []


async def test_a_declined_prompt_is_never_sent_to_the_fallback():
    async with two_providers() as (llm, one, two):
        one.behave = says(200, AnthropicDialect().refusal())
        with pytest.raises(errors.LLMRefused):
            await llm.complete(PROMPT)
        assert two.requests == []


async def test_when_all_fail_the_last_error_tells_of_every_attempt():
    async with two_providers(LLM_MAX_ATTEMPTS=1) as (llm, one, two):
        one.behave = says(500, b"")
        two.behave = says(429, b"", retry_after="7200")
        with pytest.raises(errors.LLMRateLimited) as caught:
            await llm.complete(PROMPT)
    assert [(a.provider, a.status) for a in caught.value.attempts] == [
        ("anthropic", 500),
        ("openai", 429),
    ]
    assert caught.value.provider == "openai"


async def test_an_open_circuit_sends_everyone_to_the_fallback_at_once():
    async with two_providers(LLM_MAX_ATTEMPTS=1) as (llm, one, _):
        one.behave = says(500, b"")
        for _ in range(10):
            await llm.complete(PROMPT)
        sent = len(one.requests)
        reply = await llm.complete(PROMPT)
        assert reply.text == "second"
        assert slugs(reply.attempts) == ["llm-circuit-open", ""]
        assert len(one.requests) == sent


async def test_an_open_circuit_without_fallback_is_a_503_with_retry_after(
    client, server, dialect, prompt
):
    server.behave = says(500, dialect.error("other"))
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        for _ in range(10):
            with pytest.raises(errors.LLMUnreachable):
                await llm.complete(prompt)
        with pytest.raises(errors.LLMCircuitOpen) as caught:
            await llm.complete(prompt)
    assert caught.value.status == 503
    assert int(caught.value.retry_after_header) >= 1
    assert len(server.requests) == 10


async def test_rate_limits_do_not_open_the_circuit(client, server, dialect, prompt):
    server.behave = says(429, dialect.error("limited"), retry_after="9999")
    async with client() as llm:
        for _ in range(30):
            with pytest.raises(errors.LLMRateLimited):
                await llm.complete(prompt)
    assert len(server.requests) == 30


# --- concurrency and cancellation -----------------------------------------------------------


async def test_callers_beyond_the_limit_get_a_503(client, server, dialect, prompt):
    go = asyncio.Event()
    server.behave = waits_for(go, says(200, dialect.answer()))
    async with client(LLM_MAX_CONCURRENCY=2, LLM_QUEUE_TIMEOUT=0.2) as llm:
        calls = [asyncio.create_task(llm.complete(prompt)) for _ in range(2)]
        await server.until(lambda: server.waiting == 2, "the first two")
        with pytest.raises(errors.LLMBusy) as caught:
            await llm.complete(prompt)
        assert caught.value.status == 503
        assert caught.value.retry_after_header == "1"
        go.set()
        await asyncio.gather(*calls)
        assert (await llm.complete(prompt)).text == "Hello.", "the places were not given back"


async def test_a_caller_within_the_limit_waits_briefly(client, server, dialect, prompt):
    go = asyncio.Event()
    server.behave = waits_for(go, says(200, dialect.answer()))
    async with client(LLM_MAX_CONCURRENCY=1, LLM_QUEUE_TIMEOUT=5) as llm:
        calls = [asyncio.create_task(llm.complete(prompt)) for _ in range(3)]
        await server.until(lambda: server.waiting == 1, "the first")
        assert len(server.requests) == 1
        go.set()
        assert len(await asyncio.gather(*calls)) == 3


async def test_cancelled_callers_give_back_their_places(client, server, dialect, prompt):
    async with client(LLM_MAX_CONCURRENCY=2, LLM_QUEUE_TIMEOUT=5) as llm:
        for _ in range(5):
            server.behave = hangs
            calls = [asyncio.create_task(llm.complete(prompt)) for _ in range(6)]
            await server.until(lambda: server.waiting == 2, "two calls in their places")
            for call in calls:  # two of them wait for the provider, four for a place
                call.cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            await server.until(lambda: server.connected == 0, "closing")
        server.behave = says(200, dialect.answer())
        assert (await llm.complete(prompt)).text == "Hello."
        assert llm.in_flight == 0


async def test_a_cancelled_call_closes_its_connection_and_stays_cancelled(client, server, prompt):
    server.behave = hangs
    async with client() as llm:
        call = asyncio.create_task(llm.complete(prompt))
        await server.until(lambda: server.waiting == 1, "the request")
        assert llm.in_flight == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert llm.in_flight == 0
        await server.until(lambda: server.connected == 0, "closing")


async def test_a_caller_that_is_cancelled_while_it_sleeps_asks_no_more(
    client, server, dialect, prompt
):
    server.behave = says(429, dialect.error("limited"), retry_after="5")
    async with client() as llm:
        call = asyncio.create_task(llm.complete(prompt))
        await server.until(lambda: len(server.requests) == 1 and not server.waiting, "the 429")
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert len(server.requests) == 1


async def test_an_owner_may_go_on_after_cancelling_a_call(client, server, dialect, prompt):
    """What the pipeline does with a caller that left: cancel phase 2, uncancel, write the row."""
    server.behave = hangs

    async def work(llm):
        try:
            await llm.complete(prompt)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
        async with asyncio.timeout(5):
            server.behave = says(200, dialect.answer())
            return await llm.complete(prompt)

    async with client() as llm:
        call = asyncio.create_task(work(llm))
        await server.until(lambda: server.waiting == 1, "the request")
        call.cancel()
        assert (await call).text == "Hello."


async def test_half_of_a_thousand_cancelled_then_a_thousand_healthy(client, server, dialect):
    if dialect.name != "anthropic":
        pytest.skip("the dialect makes no difference here")

    async def storm(llm):
        go = asyncio.Event()
        server.behave = waits_for(go, says(200, dialect.answer()))
        calls = [asyncio.create_task(llm.complete(PROMPT)) for _ in range(1000)]
        await server.until(lambda: server.waiting == 1000, "the arrival of all 1,000")
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls[::2], return_exceptions=True)
        go.set()
        replies = await asyncio.gather(*calls[1::2])
        assert all(reply.text == "Hello." for reply in replies)
        server.behave = says(200, dialect.answer())
        replies = await asyncio.gather(*(llm.complete(PROMPT) for _ in range(1000)))
        assert all(len(reply.attempts) == 1 for reply in replies), "some had to be retried"
        assert llm.in_flight == 0

    async def measure():
        async with client() as llm:
            await storm(llm)
        await server.until(lambda: server.connected == 0, "closing of all connections")
        await server.until(lambda: not server._tasks, "the end of the server's own tasks")
        server.requests.clear()
        gc.collect()
        return len(gc.get_objects())

    baseline = await measure()  # whatever is loaded or cached once is in it
    grown = await measure() - baseline
    assert grown < 1000, f"{grown} objects more after 2,000 calls"


# --- choosing -------------------------------------------------------------------------------


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
        await llm.complete(replace(prompt, provider=dialect.name, model="another"))
    assert server.requests[0].json["model"] == "another"
