"""The LLM that every side asks: answers like Anthropic, after a pause, whole or as a stream.

    python benchmarks/upstream.py [seconds]       # prints its port

`GET /control` reports how many calls it has answered, how many wait, how many events it has
streamed, and how much processor time it has had. It also takes:

- `low=0.1&high=0.1`: the pause, in seconds, uniform between the two;
- `events=100&gap=0.05`: a stream's events of text, and the seconds from one to the next;
- `held=1`: streams wait after their first word; `held=0`: they go on;
- `finish=1`: every stream that is open ends now, whole.
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
TICK_S = 0.01


def event(kind: str, **data: object) -> bytes:
    """An event of Anthropic's as a chunk of HTTP's chunked coding."""
    content = f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(content), content)


MESSAGE = AnthropicDialect().answer(
    id="msg_1",
    role="assistant",
    content=[],
    stop_reason=None,
    usage={"input_tokens": 120, "output_tokens": 1},
)
WORD = event("content_block_delta", index=0, delta={"type": "text_delta", "text": " staccato"})
BEGINNING = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_1\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
    + event("message_start", message=MESSAGE)
    + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + WORD
)
END = (
    event("content_block_stop", index=0)
    + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 300})
    + event("message_stop")
    + b"0\r\n\r\n"
)


class Stream:
    def __init__(self, exchange: Exchange, events: int) -> None:
        self.write = exchange.write
        self.left = events
        self.ended = asyncio.get_running_loop().create_future()


class Wheel:
    """Writes the events that are due at the same time one after the other.

    Its one timer costs less than one for each stream, which would cost more than the writing.
    """

    def __init__(self) -> None:
        self.written = 0
        self.is_held = False
        self.turn(0.1)

    def turn(self, gap: float) -> None:
        """While no stream is open: another gap between the events of each."""
        self.slots: list[list[Stream]] = [[] for _ in range(max(1, round(gap / TICK_S)))]
        self.at = 0

    def begin(self, stream: Stream) -> None:
        self.written += 1
        stream.write(BEGINNING)
        self.slots[self.at].append(stream)

    def finish(self) -> None:
        for slot in self.slots:
            for stream in slot:
                stream.left = 1

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_S, loop.time() - 1)
            await asyncio.sleep(due - loop.time())
            self.at = (self.at + 1) % len(self.slots)
            if not self.is_held:
                self.tick(self.slots[self.at])

    def tick(self, slot: list[Stream]) -> None:
        has_ended = False
        for stream in slot:
            stream.left -= 1
            if stream.left > 0 and not stream.ended.done():
                stream.write(WORD)
                self.written += 1
            else:
                has_ended = True
        if has_ended:
            for stream in slot:
                if stream.left <= 0 and not stream.ended.done():
                    stream.write(END)
                    stream.ended.set_result(None)
            slot[:] = [stream for stream in slot if not stream.ended.done()]


class Upstream:
    def __init__(self, pause: float = 0.1) -> None:
        self.low = self.high = pause
        self.events = 100
        self.answered = 0
        self.wheel = Wheel()
        self.provider = Provider(self.behave, keep=False)

    async def behave(self, exchange: Exchange) -> None:
        if exchange.path.startswith("/control"):
            await self.control(exchange)
            return
        await asyncio.sleep(random.uniform(self.low, self.high))
        if b'"stream":true' in exchange.body:
            stream = Stream(exchange, self.events)
            self.wheel.begin(stream)
            await stream.ended  # cancelled if the client leaves
        else:
            await ANSWER(exchange)
        self.answered += 1

    async def control(self, exchange: Exchange) -> None:
        waiting = self.provider.waiting - 1  # all but this one
        asked = parse_qs(urlsplit(exchange.path).query)
        if "low" in asked:
            self.low, self.high = float(asked["low"][0]), float(asked["high"][0])
            self.provider.peak_waiting = waiting
        if "events" in asked:
            self.events = int(asked["events"][0])
            self.wheel.turn(float(asked["gap"][0]))
        if "held" in asked:
            self.wheel.is_held = asked["held"] == ["1"]
        if "finish" in asked:
            self.wheel.finish()
        figures = {
            "answered": self.answered,
            "events": self.wheel.written,
            "waiting": waiting,
            "peak_waiting": self.provider.peak_waiting,
            "cpu_s": time.process_time(),
            "at": time.monotonic(),
        }
        await exchange.reply(200, json.dumps(figures).encode())


async def serve(pause: float = 0.1) -> None:
    upstream = Upstream(pause)
    async with upstream.provider.serve() as provider, asyncio.TaskGroup() as group:
        group.create_task(upstream.wheel.run())
        print(provider.url.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*map(float, sys.argv[1:])))
