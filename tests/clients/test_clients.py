"""Real clients get from the service what they get from the provider itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from generation.models import GenerationLog
from tests.clients.environment import NODE, NODE_MODULES, PYTHON, needs_clients
from tests.clients.scripted import ANTHROPIC, CALLS, OPENAI, behave

HERE = Path(__file__).parent
AT_ONCE = 2  # processes: most of what they do is to import themselves
MODELS = {"openai": OPENAI.model, "anthropic": ANTHROPIC.model}

pytestmark = needs_clients


async def drive(driver: str, *targets: tuple[str, str]) -> list[dict]:
    """What the client makes of each scenario at each address, asked for a model there."""
    folder, _, name = driver.partition("/")
    run = (
        [NODE, HERE / "node" / "run.mjs"]
        if folder == "node"
        else [PYTHON, HERE / folder / "run.py"]
    )
    process = await asyncio.create_subprocess_exec(
        *run, name, *(each for target in targets for each in target),
        env={**os.environ, "NODE_MODULES": str(NODE_MODULES)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(printed)


async def drive_all(targets: dict[str, list[tuple[str, str]]]) -> dict[str, list[dict]]:
    """The same for several drivers."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def drive_one(driver: str) -> list[dict]:
        async with turns:
            return await drive(driver, *targets[driver])

    return dict(zip(targets, await asyncio.gather(*map(drive_one, targets)), strict=True))


@pytest.fixture
async def both(serve, llm):
    """The service in front of the scripted provider, which speaks both dialects."""
    llm.behave = behave
    async with serve(
        LLM_PROVIDER="openai",
        LLM_MODEL=OPENAI.model,
        OPENAI_API_KEY="test-key",
        OPENAI_BASE_URL=f"{llm.url}/v1",
        LLM_ALLOWED=f"anthropic:{ANTHROPIC.model}",
        LLM_MAX_ATTEMPTS="1",
    ) as service:
        yield f"http://127.0.0.1:{service.port}", llm.url


CLIENTS = {
    "drivers/openai_chat": "openai",
    "drivers/langchain_openai_chat": "openai",
    "drivers/pydantic_ai_chat": "openai",
    "drivers/openai_agents": "openai",
    "drivers/llm_cli": "openai",
    "drivers/anthropic_messages": "anthropic",
    "drivers/langchain_anthropic_messages": "anthropic",
    "node/openai_chat": "openai",
    "node/ai_sdk_openai": "openai",
    "node/anthropic_messages": "anthropic",
    "node/ai_sdk_anthropic": "anthropic",
}


async def test_a_client_gets_what_it_gets_from_the_provider_whichever_dialect_that_speaks(
    both, orm, subtests
):
    service, provider = both
    users = dict(zip(CLIENTS, itertools.count(101), strict=False))  # who tell their rows apart
    account = get_user_model()
    await account.objects.abulk_create(account(id=users[name], username=name) for name in users)
    targets = {}
    for driver, dialect in CLIENTS.items():
        own, other = sorted(MODELS.values(), key=lambda model: model != MODELS[dialect])
        here = f"{service}/u/{users[driver]}"
        targets[driver] = [(provider, own), (here, own), (here, other)]
    for driver, (direct, *served) in (await drive_all(targets)).items():
        with subtests.test(driver):
            for each in served:
                # In the middle of an answer there is no status; an error's words are the service's.
                assert each["broken"].keys() == direct["broken"].keys()
                assert each["broken"]["text"] == direct["broken"]["text"]
                assert each == {**direct, "broken": each["broken"]}
            assert {name for name in direct if "error" in direct[name]} == FAILING, direct
            rows = [row async for row in GenerationLog.objects.filter(user_id=users[driver])]
            assert {row.status for row in rows} >= {"succeeded", "failed"}
            assert sum(row.status == "cancelled" for row in rows) == 2 * ("leave" in direct)
            for row in rows:
                assert row.total_tokens == 30 or row.status != "succeeded", row


FAILING = {"too_long", "broken", "limited"}
HELLO = {"text": "Hello, world.", "calls": [], "tokens": [10, 20]}
TOOLS = {"text": "", "calls": [[name, given] for _, name, given in CALLS], "tokens": [10, 20]}
RESPONSES = {
    "whole": HELLO,
    "streamed": HELLO,
    "tools": TOOLS,
    "tools_streamed": TOOLS,
    "structured": {"colour": "blue", "score": 3},
    "broken": {"text": "Hello", "error": "llm-overloaded"},
    "too_long": {"error": "BadRequestError", "status": 400, "code": "context_length_exceeded"},
    "background": HELLO,
    "resumed": {"text": HELLO["text"], "ended": "response.completed"},
    "cancelled": ["in_progress", "cancelled"],
}
STOPPED, CALLED = {**HELLO, "finish": "stop"}, {**TOOLS, "finish": "tool-calls"}
EXPECTED = {
    "drivers/openai_responses": RESPONSES,
    "node/openai_responses": RESPONSES,
    "node/ai_sdk_responses": {
        "whole": STOPPED,
        "streamed": STOPPED,
        "tools": CALLED,
        "tools_streamed": CALLED,
        "structured": {"colour": "blue", "score": 3},
        "image": STOPPED,
        "too_long": {"error": "APICallError", "status": 400},
        "broken": {"text": "Hello", "error": "an error part"},
        "limited": {"error": "APICallError", "status": 429, "after": "7"},
        "leave": {"text": "Hello"},
    },
}


async def test_a_client_of_responses_gets_the_same_from_either_provider(both, subtests):
    service, _provider = both
    targets = [(f"{service}/u/5", name) for name in MODELS.values()]
    for driver, found in (await drive_all(dict.fromkeys(EXPECTED, targets))).items():
        with subtests.test(driver):
            assert found == [EXPECTED[driver]] * len(targets)
