"""The LLM that every side asks: answers like Anthropic, after a pause.

    python benchmarks/upstream.py [seconds]       # prints its port

`GET /control?low=0.1&high=0.1` sets the pause (seconds, uniform between the two) and reports how
many calls it has answered, how many wait, and how much processor time it has had.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.dialects import AnthropicDialect
from tests.support.provider import Exchange, Provider, says

TEXT = "Staccato notes are short and detached. " * 35
USAGE = {"input_tokens": 120, "output_tokens": 300}
ANSWER = says(
    200,
    AnthropicDialect().answer(TEXT, usage=USAGE),
    content_type="application/json",
    request_id="req_1",
)


class Upstream:
    def __init__(self, pause: float = 0.1) -> None:
        self.low = self.high = pause
        self.answered = 0
        self.provider = Provider(self.behave, keep=False)

    async def behave(self, exchange: Exchange) -> None:
        if exchange.path.startswith("/control"):
            await self.control(exchange)
            return
        await asyncio.sleep(random.uniform(self.low, self.high))
        self.answered += 1
        await ANSWER(exchange)

    async def control(self, exchange: Exchange) -> None:
        waiting = self.provider.waiting - 1  # all but this one
        asked = parse_qs(urlsplit(exchange.path).query)
        if "low" in asked:
            self.low, self.high = float(asked["low"][0]), float(asked["high"][0])
            self.provider.peak_waiting = waiting
        figures = {
            "answered": self.answered,
            "waiting": waiting,
            "peak_waiting": self.provider.peak_waiting,
            "cpu_s": time.process_time(),
            "at": time.monotonic(),
        }
        await exchange.reply(200, json.dumps(figures).encode())


async def serve(pause: float = 0.1) -> None:
    async with Upstream(pause).provider.serve() as provider:
        print(provider.url.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*map(float, sys.argv[1:])))
