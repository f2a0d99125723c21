"""Whatever can reach a provider is metered."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.urls import get_resolver
from django.urls.resolvers import URLResolver

from generation import errors, generate, generation, stream
from generation.asgi.lean import find_route
from generation.models import Limit
from generation.runtime.process import Runtime
from tests.support.in_process import in_process_client

SAYS = {"model": "simulated", "max_tokens": 10, "messages": [{"role": "user", "content": "a"}]}
V1 = "/u/2/v1"
# A request to each route that may reach a provider, by the route's name. A new one comes here.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("/api/v1/generate/2", {"input": "a"}),
    "chat_completions": (f"{V1}/chat/completions", SAYS),
    "responses": (f"{V1}/responses", {"model": "simulated", "input": "a"}),
    "messages": (f"{V1}/messages", SAYS),
    "embeddings": (f"{V1}/embeddings", {"model": "gpt-6-luna", "input": "a"}),
    "count_tokens": (f"{V1}/messages/count_tokens", {**SAYS, "model": "claude-sonnet-5-5"}),
}
NEVER_STREAMED = {"embeddings", "count_tokens"}
ENTRANCES = {"enter", "enter_sdk", "enter_operator"}  # to a generation; the others only read
# A person's form, with a session: see tests/admin/test_replays.py, which shows that it is metered.
FORMS = {"staccato-replay"}


@pytest.fixture
async def runtime(users, orm, settings, monkeypatch):
    async def nothing(_runtime: Runtime) -> None: ...

    monkeypatch.setattr(Runtime, "tidy_up", nothing)
    settings.STACCATO = {
        **settings.STACCATO,
        "LLM_ALLOWED": "openai:gpt-6-luna,anthropic:claude-sonnet-5-5",
        "OPENAI_API_KEY": "k",
        "ANTHROPIC_API_KEY": "k",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
    }
    async with Runtime.open() as opened:
        yield opened


def guarded(patterns):
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from guarded(pattern.url_patterns)
            continue
        route = find_route(pattern.callback)
        if route is not None and route.entrance and route.entrance.__name__ in ENTRANCES:
            yield pattern.name


def test_each_route_that_takes_a_place_is_one_of_those_below():
    assert set(guarded(get_resolver().url_patterns)) == set(REQUESTS) | FORMS


async def test_each_route_is_metered(runtime, subtests):
    await Limit.objects.acreate(scope="all", unit="requests", amount=0, window="day")
    await runtime.limits.refresh()
    async with in_process_client() as client:
        for name, (url, body) in REQUESTS.items():
            streamed = [] if name in NEVER_STREAMED else [{**body, "stream": True}]
            for given in (body, *streamed):
                with subtests.test(name):
                    answer = await client.post(url, json=given)
                    assert answer.status_code == 403, answer.text
                    assert "limit of requests per day is 0" in answer.text


async def test_python_code_is_metered(runtime):
    await Limit.objects.acreate(scope="user", unit="requests", amount=0, window="day")
    await runtime.limits.refresh()
    with pytest.raises(errors.BudgetClosed):
        await generate(2, prompt="a")
    with pytest.raises(errors.BudgetClosed):
        async with stream(2, prompt="a") as answer:
            await anext(answer)
    with pytest.raises(errors.BudgetClosed):
        async with generation(2):
            pass


async def test_a_call_with_a_library_of_ones_own_is_charged_for_what_its_code_says(runtime):
    for unit in ("tokens", "usd"):
        await Limit.objects.acreate(scope="user", unit=unit, amount=10**12, window="day")
    await runtime.limits.refresh()
    async with generation(2) as own:
        own.reply("a", usage={"input_tokens": 3, "output_tokens": 4}, cost_usd=Decimal("0.5"))
    spent = {block.rule.unit: block.spent for block in runtime.limits.ledger._blocks.values()}
    assert spent == {"tokens": 7, "usd": 500_000_000}
