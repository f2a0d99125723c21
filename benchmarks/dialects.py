"""The vendors' routes beside the native one: what a whole answer costs, and an event of a stream.

All are asked by turns in one process, so what slows the machine slows each of them. The bare relay
of the streams' part is measured in the same rounds.
"""

from __future__ import annotations

import copy
import json

IN_FLIGHT = 200
LLM_S = 0.1
WARM_S = 1
ASKED = {
    "model": "anthropic:claude-sonnet-5-5",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
}
# The path, the body, how an event with text begins, and the last event of a whole stream.
ROUTES = {
    "native": ("/api/v1/generate/{}", {"input": "Why is the sky blue?"},
               b"event: delta", b"event: done"),
    "chat": ("/u/{}/v1/chat/completions", ASKED, b'"delta":{"content":" ', b"data: [DONE]"),
    "messages": ("/u/{}/v1/messages", {**ASKED, "max_tokens": 1024},
                 b"event: content_block_delta", b"event: message_stop"),
    "responses": ("/u/{}/v1/responses", {"model": ASKED["model"], "input": "Why is the sky blue?"},
                  b"event: response.output_text.delta", b"event: response.completed"),
}  # fmt: skip


class Dialects:
    def __init__(self, bench, streaming) -> None:
        self.bench = bench
        self.streaming = streaming

    async def run(self, sides, rounds: int) -> None:
        floor, staccato = sides["a"], sides["b"]
        with self.bench.serving(floor) as bare, self.bench.serving(staccato) as ours:
            for round_number in range(rounds + 1):
                noted = {"kind": "dialects", "round": round_number}
                event_us = await self.event_us(floor, *bare, *ROUTES["messages"])
                runs = [{**noted, "side": "a", "route": "relay", "event_us": event_us}]
                for name, route in ROUTES.items():
                    whole_us, errors = await self.whole_us(staccato, *ours, *route[:2])
                    event_us = await self.event_us(staccato, *ours, *route)
                    found = {"whole_us": whole_us, "event_us": event_us, "errors": errors}
                    runs.append({**noted, "side": "b", "route": name, **found})
                if round_number:  # the one before loads what a process loads once
                    for run in runs:
                        self.streaming.note(run)

    async def whole_us(self, side, port: int, pid: int, path: str, body) -> tuple[float, int]:
        """Returns the processor time of an answer, and how many calls failed."""
        side = copy.copy(side)
        side.wrk_env = {"BENCH_PATH": path.format("%d"), "BENCH_BODY": json.dumps(body)}
        window = self.bench.options.window
        run = await self.bench.load(
            side, port, pid, IN_FLIGHT, LLM_S, LLM_S, WARM_S, window
        )  # fmt: skip
        return run["cpu_us"], run["errors"]

    async def event_us(self, side, port: int, pid: int, path, body, word, end) -> float:
        """Returns the processor time of an event, while no stream begins or ends."""
        body = json.dumps({**body, "stream": True}, separators=(",", ":"))
        path = path.format(1)
        callers = self.streaming.callers_of(side, port, path, body, word, end)
        try:
            return (await self.streaming.going(callers, pid))["event_us"]
        finally:
            callers.close()
