"""The LLM that every side asks: answers like Anthropic, after a pause.

    python benchmarks/upstream.py       # prints its port

`GET /control?low=0.1&high=0.1` sets the pause (seconds, uniform between the two) and tells how
many calls it has answered, how many wait, and how much processor time it has had.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from urllib.parse import parse_qs, urlsplit

import uvloop

MODEL = "claude-sonnet-5-5"
REPLY = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Staccato notes are short and detached. " * 35}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 120, "output_tokens": 300},
    }
).encode()


def answer(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


ANSWER = answer(REPLY)


class State:
    low = high = 0.1
    answered = waiting = peak_waiting = 0


class Upstream(asyncio.Protocol):
    """One request at a time per connection, as HTTP/1.1 clients without pipelining send them."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""
        self.due = None
        self.call_later = asyncio.get_running_loop().call_later

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        if self.buffer.startswith(b"GET "):
            self.control(self.buffer.split(b" ", 2)[1].decode())
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) - end - 4 < length:
            return
        self.buffer = b""
        State.waiting += 1
        State.peak_waiting = max(State.peak_waiting, State.waiting)
        self.due = self.call_later(random.uniform(State.low, State.high), self.answer)

    def answer(self):
        self.due = None
        State.waiting -= 1
        State.answered += 1
        self.transport.write(ANSWER)

    def connection_lost(self, _error):
        if self.due is not None:  # the caller has given up
            self.due.cancel()
            State.waiting -= 1

    def control(self, target):
        self.buffer = b""
        asked = parse_qs(urlsplit(target).query)
        if "low" in asked:
            State.low, State.high = float(asked["low"][0]), float(asked["high"][0])
            State.peak_waiting = State.waiting
        told = {
            "answered": State.answered,
            "waiting": State.waiting,
            "peak_waiting": State.peak_waiting,
            "cpu_s": time.process_time(),
            "at": time.monotonic(),
        }
        self.transport.write(answer(json.dumps(told).encode()))


async def serve():
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", 0, backlog=10_000
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
