"""Limits and cancellation: places and connections come back."""

from __future__ import annotations

import asyncio
import gc

import pytest

from generation import errors
from generation.conf import parse
from generation.llm import policy
from generation.llm.client import LLMClient
from generation.llm.providers import registry
from tests.support import virtual_time
from tests.support.dialects import PROMPT, AnthropicDialect
from tests.support.provider import hangs, says, waits_for
from tests.support.waiting import HANG_S


class Limiting:
    """Answers each call with a 429 that says when to come again."""

    url = ""
    name = "simulated"
    default_model = "simulated"
    price_list = ""
    calls = 0

    def __call__(self, settings, transport):
        """It stands in for its class, too."""
        return self

    async def ask(self, prompt, model, idempotency_key):
        self.calls += 1
        raise policy.to_error(policy.find(429), "no", status_code=429, retry_after=5)


async def test_callers_beyond_the_limit_get_a_503(client, server, dialect, prompt):
    go = asyncio.Event()
    server.behave = waits_for(go, says(200, dialect.answer()))
    async with client(LLM_MAX_CONCURRENCY=2, LLM_QUEUE_TIMEOUT=0.2) as llm:
        calls = [asyncio.create_task(llm.complete(prompt)) for _ in range(2)]
        await server.until(lambda: server.waiting == 2, "the first two")
        with pytest.raises(errors.LLMBusy) as caught:
            (await llm.complete(prompt)).require_reply()
        assert caught.value.status == 503
        assert caught.value.retry_after_header == "1"
        go.set()
        assert all(outcome.reply is not None for outcome in await asyncio.gather(*calls))
        assert (await llm.complete(prompt)).require_reply().text == "Hello.", (
            "the places were not given back"
        )


async def test_a_caller_within_the_limit_waits_briefly(client, server, dialect, prompt):
    go = asyncio.Event()
    server.behave = waits_for(go, says(200, dialect.answer()))
    async with client(LLM_MAX_CONCURRENCY=1, LLM_QUEUE_TIMEOUT=5) as llm:
        calls = [asyncio.create_task(llm.complete(prompt)) for _ in range(3)]
        await server.until(lambda: server.waiting == 1, "the first")
        assert len(server.requests) == 1
        go.set()
        assert all(outcome.reply is not None for outcome in await asyncio.gather(*calls))


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
        assert (await llm.complete(prompt)).require_reply().text == "Hello."
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


def test_a_caller_that_is_cancelled_while_it_sleeps_asks_no_more(monkeypatch):
    provider = Limiting()
    monkeypatch.setitem(registry.PROVIDERS, "simulated", provider)

    async def main():
        async with LLMClient.open(parse({"LLM_PROVIDER": "simulated"})) as llm:
            call = asyncio.create_task(llm.complete(PROMPT))
            await asyncio.sleep(3)
            assert provider.calls == 1
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(60)

    virtual_time.run(main())
    assert provider.calls == 1


async def test_an_owner_may_go_on_after_cancelling_a_call(client, server, dialect, prompt):
    """What the pipeline does with a caller that left: cancel phase 2, uncancel, write the row."""
    server.behave = hangs

    async def work(llm):
        try:
            (await llm.complete(prompt)).require_reply()
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
        async with asyncio.timeout(HANG_S):
            server.behave = says(200, dialect.answer())
            return (await llm.complete(prompt)).require_reply()

    async with client() as llm:
        call = asyncio.create_task(work(llm))
        await server.until(lambda: server.waiting == 1, "the request")
        call.cancel()
        assert (await call).text == "Hello."


@pytest.mark.served
@pytest.mark.parametrize("dialect", [AnthropicDialect()], ids=["anthropic"])
async def test_half_of_hundreds_cancelled_then_hundreds_healthy(client, server, dialect):
    async def storm(llm):
        go = asyncio.Event()
        server.behave = waits_for(go, says(200, dialect.answer()))
        calls = [asyncio.create_task(llm.complete(PROMPT)) for _ in range(400)]
        await server.until(lambda: server.waiting == 400, "the arrival of all 400")
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls[::2], return_exceptions=True)
        go.set()
        outcomes = await asyncio.gather(*calls[1::2])
        assert all(outcome.require_reply().text == "Hello." for outcome in outcomes)
        server.behave = says(200, dialect.answer())
        outcomes = await asyncio.gather(*(llm.complete(PROMPT) for _ in range(400)))
        assert all(outcome.reply is not None for outcome in outcomes)
        assert all(len(outcome.attempts) == 1 for outcome in outcomes), "some had to be retried"
        assert llm.in_flight == 0

    async def measure():
        async with client() as llm:
            await storm(llm)
        await server.until(lambda: server.connected == 0, "closing of all connections")
        await server.until(lambda: not server.tasks, "the end of the server's own tasks")
        server.requests.clear()
        gc.collect()
        return len(gc.get_objects())

    baseline = await measure()  # whatever is loaded or cached once is in it
    grown = await measure() - baseline
    assert grown < 400, f"{grown} objects more after 800 calls"
