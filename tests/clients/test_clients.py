"""Real clients get from the service what they get from the provider itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from generation.models import GenerationLog
from tests.clients.environment import PYTHON, needs_clients
from tests.clients.scripted import ANTHROPIC, CALLS, OPENAI, behave

DRIVERS = Path(__file__).with_name("drivers")
MODELS = {"openai": OPENAI.model, "anthropic": ANTHROPIC.model}

pytestmark = needs_clients


async def drive(driver: str, *targets: tuple[str, str]) -> list[dict]:
    """What the client makes of each scenario at each address, asked for a model there."""
    arguments = [each for target in targets for each in target]
    process = await asyncio.create_subprocess_exec(
        PYTHON, DRIVERS / "run.py", driver, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(printed)


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
        yield f"http://127.0.0.1:{service.port}/u/5", llm.url


CLIENTS = {
    "openai_chat": "openai",
    "langchain_openai_chat": "openai",
    "pydantic_ai_chat": "openai",
    "openai_agents": "openai",
    "llm_cli": "openai",
    "anthropic_messages": "anthropic",
    "langchain_anthropic_messages": "anthropic",
}


@pytest.mark.parametrize(("driver", "dialect"), CLIENTS.items())
async def test_a_client_gets_what_it_gets_from_the_provider_whichever_dialect_that_speaks(
    both, orm, driver, dialect
):
    service, provider = both
    own, other = sorted(MODELS.values(), key=lambda model: model != MODELS[dialect])
    direct, same, translated = await drive(
        driver, (provider, own), (service, own), (service, other)
    )
    for served in (same, translated):
        # In the middle of an answer there is no status; the words of an error are the service's.
        assert served["broken"].keys() == direct["broken"].keys()
        assert served["broken"]["text"] == direct["broken"]["text"]
        assert served == {**direct, "broken": served["broken"]}
    assert all("error" not in direct[name] for name in ("whole", "streamed", "tools")), direct
    assert all("error" in direct[name] for name in ("too_long", "broken", "limited")), direct
    rows = [row async for row in GenerationLog.objects.all()]
    assert {row.status for row in rows} >= {"succeeded", "failed"}
    assert any(row.status == "cancelled" for row in rows) == ("leave" in direct)
    for row in rows:
        assert row.total_tokens == 30 or row.status != "succeeded", row


async def test_the_client_of_responses_gets_the_same_from_either_provider(both):
    service, _provider = both
    hello = {"text": "Hello, world.", "calls": [], "tokens": [10, 20]}
    tools = {"text": "", "calls": [[name, given] for _, name, given in CALLS], "tokens": [10, 20]}
    for results in await drive("openai_responses", *((service, name) for name in MODELS.values())):
        assert results == {
            "whole": hello,
            "streamed": hello,
            "tools": tools,
            "tools_streamed": tools,
            "structured": {"colour": "blue", "score": 3},
            "broken": {"text": "Hello", "error": "llm-overloaded"},
            "too_long": {
                "error": "BadRequestError", "status": 400, "code": "context_length_exceeded",
            },
        }  # fmt: skip
