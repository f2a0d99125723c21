"""What is read from the outside: processor time, memory, connections, and paced callers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from generation.telemetry.durations import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants."""
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_kb(pid: int) -> int:
    """Resident memory of a process and its descendants."""
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def ask(url: str, headers: Sequence[str] = ()) -> dict:
    request = urllib.request.Request(url)
    for header in headers:
        request.add_header(*header.split(": ", 1))
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


class ConnectionCount:
    """The most connections of other clients than us that PostgreSQL saw at once."""

    SQL = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )

    def __init__(self, url: str) -> None:
        self.url = url
        self.peak = 0

    async def __aenter__(self):
        import asyncpg

        self.link = await asyncpg.connect(self.url)
        self.task = asyncio.create_task(self.watch())
        return self

    async def watch(self):
        while True:
            self.peak = max(self.peak, await self.link.fetchval(self.SQL))
            await asyncio.sleep(0.2)

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.link.terminate()


async def commit_ms(url: str, number: int = 200) -> dict[str, float]:
    """How long one committed insert takes, alone, on the same PostgreSQL."""
    import asyncpg

    link = await asyncpg.connect(url)
    await link.execute("CREATE TABLE IF NOT EXISTS bench_commit (text text)")
    times = []
    for _ in range(number):
        started = time.perf_counter()
        await link.execute("INSERT INTO bench_commit VALUES ($1)", "x" * 1500)
        times.append((time.perf_counter() - started) * 1000)
    await link.close()
    return percentiles(times)


def percentiles(times: list[float]) -> dict[str, float]:
    if not times:
        return {"p50": float("nan"), "p99": float("nan")}
    ordered = sorted(times)
    return {"p50": percentile(ordered, 0.50), "p99": percentile(ordered, 0.99)}


class Caller(asyncio.Protocol):
    """A connection of the paced load: one request at a time, without a parser's cost."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.buffer = b""
        self.due = 0.0

    def connection_made(self, transport):
        self.transport = transport

    def send(self, due: float) -> None:
        self.due = due
        self.transport.write(self.pace.request)

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.pace.done(self, ok=self.buffer[9:12] == b"200")
        self.buffer = b""

    def connection_lost(self, _error):
        if self.pace.is_closing:
            return
        if self in self.pace.idle:  # the server closes connections that wait for long
            self.pace.idle.remove(self)
        else:
            self.pace.lost += 1


class Pace:
    """Callers that come when they come, not when the one before was answered.

    Times count from when a request was due, so a service that falls behind can't hide it.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.port = port
        self.request = request
        self.idle: list[Caller] = []
        self.times: list[float] = []
        self.failed = self.lost = 0
        self.is_closing = False

    @property
    def settled(self) -> int:
        return len(self.times) + self.failed + self.lost

    def done(self, caller: Caller, *, ok: bool) -> None:
        if ok:
            self.times.append((asyncio.get_running_loop().time() - caller.due) * 1000)
        else:
            self.failed += 1
        self.idle.append(caller)

    async def run(self, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        started = due = loop.time()
        settled = self.settled
        sent = 0
        while due < started + seconds:
            await asyncio.sleep(due - loop.time())
            if not self.idle:
                _, caller = await loop.create_connection(
                    lambda: Caller(self), "127.0.0.1", self.port
                )
                self.idle.append(caller)
            self.idle.pop().send(due)
            sent += 1
            due += random.expovariate(rate)
        end = loop.time() + 30
        while self.settled - settled < sent and loop.time() < end:
            await asyncio.sleep(0.05)

    def close(self) -> None:
        self.is_closing = True
        for caller in self.idle:
            caller.transport.abort()
