"""A client that repeats refusals by itself does not repeat that of a spent budget."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from generation.models import Limit
from tests.clients.environment import PYTHON, needs_clients
from tests.clients.scripted import OPENAI
from tests.support import http
from tests.support.windows import zone_of_noon

pytestmark = needs_clients
DRIVER = Path(__file__).parent / "drivers" / "run.py"


async def test_the_vendors_clients_send_one_request_on_a_spent_budget(serve, llm, orm):
    await Limit.objects.acreate(
        scope="user", user_id=5, unit="requests", amount=1, window="month", zone=zone_of_noon()
    )
    async with serve(LLM_ALLOWED=f"openai:{OPENAI.model}", OPENAI_API_KEY="k") as service:
        hello = {"messages": [{"role": "user", "content": "Hello."}]}
        spent = await http.generate(service.port, 5, hello)
        assert spent.status == 200, spent.body
        address = f"http://127.0.0.1:{service.port}/u/5"
        refusals = 'staccato_requests_total{outcome="budget-exhausted"}'
        process = await asyncio.create_subprocess_exec(
            PYTHON, DRIVER, "spent_budget", address, "claude-sonnet-5-5",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, _ = await process.communicate()
        refused = {"error": "RateLimitError", "status": 429}
        assert json.loads(printed) == [{"openai": refused, "anthropic": refused}]
        assert await service.metric(refusals) == 2, "one of each client"
    assert llm.calls == 1
