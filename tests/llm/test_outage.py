"""A minute's outage at 100 requests per second, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections import Counter

from generation.conf import parse
from generation.llm import policy
from generation.llm.client import LLMClient
from generation.llm.providers import registry
from generation.llm.providers.base import Answer
from generation.records import Prompt, Usage
from tests.support import virtual_time

RATE = 100
PROMPT = Prompt("Hello.", "", "", "", 100)


class Failing:
    """Healthy for 10 s, then one status for a minute, then healthy again."""

    name = "simulated"
    default_model = "simulated"
    price_list = ""
    url = ""
    began, ended = 10.0, 70.0

    def __init__(self, status: int, latency_s: float) -> None:
        self.status = status
        self.latency_s = latency_s
        self.sent: list[float] = []

    def __call__(self, settings, transport):
        """It stands in for its class, too."""
        return self

    async def ask(self, prompt, model, idempotency_key):
        now = asyncio.get_running_loop().time()
        self.sent.append(now)
        if self.began <= now < self.ended:
            await asyncio.sleep(0.05)
            raise policy.to_error(policy.find(self.status), "no", status_code=self.status)
        await asyncio.sleep(self.latency_s)
        return Answer("Hello.", Usage(1, 1), model, "end_turn")


class Hanging(Failing):
    """The same, but a call that begins within the minute gets no answer at all."""

    async def ask(self, prompt, model, idempotency_key):
        now = asyncio.get_running_loop().time()
        if not self.began <= now < self.ended:
            return await super().ask(prompt, model, idempotency_key)
        self.sent.append(now)
        return await asyncio.Event().wait()


def rehearse(monkeypatch, status, latency_s=2.0, kind=Failing):
    """Returns the provider and, for each request, when it came, what became of it, and when."""
    provider = kind(status, latency_s)
    monkeypatch.setitem(registry.PROVIDERS, "simulated", provider)
    outcomes: list[tuple[float, str, float]] = []

    async def request(llm):
        clock = asyncio.get_running_loop().time
        came = clock()
        error = (await llm.complete(PROMPT)).error
        outcomes.append((came, "succeeded" if error is None else error.slug, clock()))

    async def main():
        async with LLMClient.open(parse({"LLM_PROVIDER": "simulated"})) as llm:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(90 * RATE):
                    tasks.create_task(request(llm))
                    await asyncio.sleep(1 / RATE)
            assert llm.in_flight == 0

    virtual_time.run(main())
    return provider, outcomes


def test_a_cancelled_probe_frees_its_slot_and_decides_nothing(monkeypatch):
    provider = Failing(500, latency_s=5)
    provider.began, provider.ended = 0, 1
    monkeypatch.setitem(registry.PROVIDERS, "simulated", provider)

    async def outcome(llm):
        error = (await llm.complete(PROMPT)).error
        return "succeeded" if error is None else error.slug

    async def main():
        settings = parse({"LLM_PROVIDER": "simulated", "LLM_MAX_ATTEMPTS": 1})
        async with LLMClient.open(settings) as llm:
            for _ in range(10):
                assert await outcome(llm) == "llm-unreachable"
            await asyncio.sleep(3)
            for _ in range(3):
                probe = asyncio.create_task(llm.complete(PROMPT))
                await asyncio.sleep(1)
                assert await outcome(llm) == "llm-circuit-open", "the probe was not alone"
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)
            last = asyncio.create_task(outcome(llm))
            await asyncio.sleep(1)
            assert await outcome(llm) == "llm-circuit-open", "a cancelled probe closed the circuit"
            assert await last == "succeeded"
            assert await outcome(llm) == "succeeded"

    virtual_time.run(main())


def during(provider, times):
    return sum(provider.began <= time < provider.ended for time in times)


def assert_healed_soon(provider, outcomes) -> float:
    """When the first call was answered again: a probe is due every 2 s, and takes 2 s itself.

    It may be the retry of a request that came before the end.
    """
    healed = min(at for _, slug, at in outcomes if at >= provider.ended and slug == "succeeded")
    assert healed - provider.ended < 5, f"recovered after {healed - provider.ended:.1f} s"
    return healed


def test_an_outage_costs_the_provider_at_most_a_fifth_more_and_is_over_soon(monkeypatch):
    provider, outcomes = rehearse(monkeypatch, 529)
    offered = during(provider, (came for came, _, _ in outcomes))
    sent = during(provider, provider.sent)
    assert offered == 60 * RATE
    assert sent <= 1.2 * offered, f"{sent} calls for {offered} requests"
    opened = min(at for _, slug, at in outcomes if slug == "llm-circuit-open")
    assert opened - provider.began < 2, f"the circuit opened after {opened - provider.began:.1f} s"
    healed = assert_healed_soon(provider, outcomes)
    late = Counter(slug for came, slug, _ in outcomes if came > healed)
    assert set(late) == {"succeeded"}, late


def test_a_minute_of_rate_limits_stays_within_the_retry_budget(monkeypatch):
    """They don't open the circuit, so here the budget alone keeps the promise."""
    provider, outcomes = rehearse(monkeypatch, 429)
    offered = during(provider, (came for came, _, _ in outcomes))
    sent = during(provider, provider.sent)
    assert sent <= 1.2 * offered, f"{sent} calls for {offered} requests"
    assert sent > 1.1 * offered, "the budget is there to be used"
    assert all(slug in {"succeeded", "llm-rate-limited"} for _, slug, _ in outcomes)


def test_an_outage_in_which_calls_hang_is_over_as_soon(monkeypatch):
    provider, outcomes = rehearse(monkeypatch, 0, kind=Hanging)
    assert_healed_soon(provider, outcomes)


def test_gateway_timeouts_open_the_circuit_too(monkeypatch):
    provider, outcomes = rehearse(monkeypatch, 504)
    assert any(slug == "llm-circuit-open" for _, slug, _ in outcomes)
    assert during(provider, provider.sent) < 0.1 * 60 * RATE
