"""Callers that read streams, as cheaply as Python can: they share their core with the LLM."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

LAST_CHUNK = b"0\r\n\r\n"  # of HTTP's chunked coding
GAP_STEPS_PER_S = 100  # as exact as gaps between reads are kept
TAIL_BYTES = 64  # kept, because the mark of a whole stream may be split between two reads


class Caller(asyncio.Protocol):
    """A connection that asks for one stream at a time."""

    def __init__(self, callers: Callers) -> None:
        self.callers = callers
        self.is_open = self.has_end = False
        self.clock = asyncio.get_running_loop().time

    def connection_made(self, transport):
        self.transport = transport

    def send(self, due: float) -> None:
        self.due = due
        self.read_at = 0.0
        self.tail = b""
        self.is_open = True
        self.callers.open += 1
        self.transport.write(self.callers.request)

    def data_received(self, data):
        now = self.clock()
        callers = self.callers
        if self.read_at:
            since = max(self.read_at, callers.counts_from)
            callers.gaps[int((now - since) * GAP_STEPS_PER_S)] += 1
            self.read_at = now
        elif callers.word in data:
            callers.firsts.append((now - self.due) * 1000)
            self.read_at = now
        elif not data.startswith(b"HTTP/1.1 200 ") and not self.tail:
            callers.failed += 1
            self.transport.abort()
            return
        self.tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else self.tail + data
        callers.seen += data.count(callers.word)
        if callers.end in data or callers.end in self.tail:
            self.has_end = True
        if data.endswith(LAST_CHUNK):
            self.ended()

    def ended(self) -> None:
        callers = self.callers
        self.is_open = False
        callers.open -= 1
        if self.has_end:
            callers.whole += 1
        else:
            callers.torn += 1
        self.has_end = False
        callers.again(self)

    def connection_lost(self, _error):
        if self.is_open:
            self.is_open = False
            self.callers.open -= 1
            self.callers.torn += 1


class Callers:
    """`word` begins each event of text, `end` the last event of a whole stream."""

    def __init__(self, port: int, request: bytes, word: bytes, end: bytes) -> None:
        self.port = port
        self.request = request
        self.word, self.end = word, end
        self.connections: list[Caller] = []
        self.idle: list[Caller] = []
        self.repeats = False
        self.reset()
        self.open = 0

    def reset(self) -> None:
        self.counts_from = asyncio.get_running_loop().time()
        self.firsts: list[float] = []  # ms from when a request was due to its first word
        self.gaps: Counter[int] = Counter()  # between two reads of a stream
        self.whole = self.torn = self.failed = self.seen = 0

    def again(self, caller: Caller) -> None:
        if self.repeats:
            caller.send(caller.clock())
        else:
            self.idle.append(caller)

    async def begin(self, due: float) -> None:
        if self.idle:
            caller = self.idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, caller = await loop.create_connection(lambda: Caller(self), "127.0.0.1", self.port)
            self.connections.append(caller)
        caller.send(due)

    async def open_all(self, number: int, seconds: float) -> None:
        """So many streams, begun evenly."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for place in range(number):
            await asyncio.sleep(began + place * seconds / number - loop.time())
            await self.begin(loop.time())

    async def arrive(self, rate: float, seconds: float) -> None:
        """As many a second, when they come. Times count from when a request was due."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        end = due + seconds
        while due < end:
            await asyncio.sleep(due - loop.time())
            await self.begin(due)
            due += random.expovariate(rate)

    async def until_over(self, seconds: float = 120) -> None:
        """Raises `TimeoutError` if streams stay open for longer."""
        self.repeats = False
        async with asyncio.timeout(seconds):
            while self.open:
                await asyncio.sleep(0.05)

    def close(self) -> None:
        for caller in self.connections:
            caller.transport.abort()


def percentile_of(gaps: Counter[int], share: float) -> float:
    """Returns seconds, to a hundredth."""
    left = share * gaps.total()
    for step in sorted(gaps):
        left -= gaps[step]
        if left <= 0:
            return (step + 1) / GAP_STEPS_PER_S
    return 0.0
