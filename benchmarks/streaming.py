"""Streams: what each event costs, and each stream, and how soon the first word comes.

Two loads tell the costs apart. While streams that have begun go on, the processor time is that of
their events alone: this gives the cost of an event. Short streams one after the other cost the same
for their events, and the rest is the cost of a stream, from its request to its row.
"""

from __future__ import annotations

import asyncio

import measuring
from stream_callers import Callers, percentile_of

from tests.support import http

OPEN = 500  # streams
GAP_S = 0.1  # between the events of one
SHORT = 20  # events
ENDLESS = 1_000_000  # events
LONG = 100  # events of the stream whose cost is compared
PAUSE_S = 0.1  # before the first event, where the time until it is measured
FIRST_GAP_S = 0.05  # between the events, there
OPEN_PER_S = 400
MARKS = {"a": (b"event: content_block_delta", b"event: message_stop"),
         "b": (b"event: delta", b"event: done")}  # fmt: skip


class Streaming:
    """Both sides are up all the time, on the same core, and one works at a time."""

    def __init__(self, bench) -> None:
        self.bench = bench

    async def run(self, sides, rounds: int) -> None:
        with self.bench.serving(sides["a"]) as floor, self.bench.serving(sides["b"]) as staccato:
            both = {"a": floor, "b": staccato}
            costs = {}
            for round_number in range(rounds + 1):
                for key, (port, pid) in both.items():
                    costs[key] = await self.cost(sides[key], port, pid)
                    if round_number:  # the one before loads what a process loads once
                        self.note({"kind": "stream", "round": round_number, **costs[key]})
                if not round_number:
                    continue
                rate = 0.25e6 / (costs["b"]["stream_us"] + LONG * costs["b"]["event_us"])
                for key, (port, _) in both.items():
                    found = await self.first_words(sides[key], port, rate)
                    self.note({"kind": "first", "round": round_number, **found})

    async def cost(self, side, port: int, pid: int) -> dict:
        window = self.bench.options.window
        callers = self.callers(side, port)
        going = await self.going(callers, pid)
        event_us = going["event_us"]
        self.control(events=SHORT, gap=GAP_S, low=0, high=0)
        callers.repeats = True
        await callers.open_all(OPEN, SHORT * GAP_S)
        await asyncio.sleep(1)
        short = await self.watch(pid, window)
        await callers.until_over()
        callers.close()
        return {
            "side": side.key,
            "event_us": event_us,
            "stream_us": (short["cpu_us"] - event_us * short["events"]) / short["answered"],
            "events_per_s": going["events"] / going["seconds"],
            "core_shares": [load["cpu_us"] / 1e6 / load["seconds"] for load in (going, short)],
            "whole": callers.whole,
            "errors": callers.torn + callers.failed,
        }

    async def going(self, callers: Callers, pid: int) -> dict:
        """What a process does while its streams go on, and none begins or ends."""
        self.control(events=ENDLESS, gap=GAP_S, low=0, high=0)
        await callers.open_all(OPEN, 1.5)
        await asyncio.sleep(1)
        load = await self.watch(pid, self.bench.options.window)
        self.control(finish=1)
        await callers.until_over()
        return {**load, "event_us": load["cpu_us"] / load["events"]}

    async def first_words(self, side, port: int, rate: float) -> dict:
        callers = self.callers(side, port)
        self.control(events=LONG, gap=FIRST_GAP_S, low=PAUSE_S, high=PAUSE_S)
        await callers.arrive(rate, LONG * FIRST_GAP_S)  # now about as many begin as end
        callers.reset()
        await callers.arrive(rate, self.bench.options.window * 1.5)
        await callers.until_over()
        callers.close()
        found = measuring.percentiles(callers.firsts)
        return {
            "side": side.key,
            "per_s": rate,
            "p50_ms": found["p50"] - PAUSE_S * 1000,
            "p99_ms": found["p99"] - PAUSE_S * 1000,
            "errors": callers.torn + callers.failed,
        }

    async def crowd(self, side, number: int, gap: float, seconds: float) -> None:
        """All open at once in one process: what of connections and memory they take.

        The pace begins when each has its first word, or the last would be opened into a machine
        that is busy with the others.
        """
        with self.bench.serving(side) as (port, pid):
            self.control(events=5, gap=GAP_S, low=0, high=0)
            callers = self.callers(side, port)
            await callers.open_all(50, 1)
            await callers.until_over()
            idle_kb = measuring.memory_kb(pid)
            self.control(events=ENDLESS, gap=gap, low=0, high=0, held=1)
            async with measuring.ConnectionCount(self.bench.database) as connections:
                await callers.open_all(number, number / OPEN_PER_S)
                async with asyncio.timeout(120):
                    while len(callers.firsts) < number + 50 and not callers.torn:
                        await asyncio.sleep(0.1)
                callers.reset()
                self.control(held=0)
                watching = asyncio.create_task(self.checked_out(side, port))
                load = await self.watch(pid, seconds)
                seen, gaps = callers.seen, callers.gaps.copy()
                memory_kb = measuring.memory_kb(pid)
                watching.cancel()
                looks = (await asyncio.gather(watching, return_exceptions=True))[0]
                self.control(finish=1)
                await callers.until_over(180)
                opened = connections.peak
            callers.close()
        self.note({
            "kind": "crowd", "round": 1, "side": side.key, "in_flight": number, "gap_s": gap,
            "whole": callers.whole, "errors": callers.torn + callers.failed,
            "sent_per_s": load["events"] / load["seconds"], "read_per_s": seen / load["seconds"],
            "core_share": load["cpu_us"] / 1e6 / load["seconds"],
            "event_us": load["cpu_us"] / load["events"],
            "gap_p50_s": percentile_of(gaps, 0.5), "gap_p99_s": percentile_of(gaps, 0.99),
            "longest_gap_s": percentile_of(gaps, 1.0),
            "connections": opened, "checked_out": max(looks), "looks": len(looks),
            "looks_at_none": looks.count(0),
            "kb_each": (memory_kb - idle_kb) / number, "idle_kb": idle_kb,
        })  # fmt: skip

    async def checked_out(self, side, port: int) -> list[int]:
        """Until it is cancelled. Returns how many connections were checked out at each look."""
        looks = []
        headers = [tuple(header.split(": ", 1)) for header in side.headers]
        try:
            while True:
                answer = await http.request(port, "GET", "/api/v1/pool", headers=headers)
                looks.append(answer.json()["checked_out"])
                await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            assert looks, "the pool's page did not answer"
            return looks

    async def watch(self, pid: int, seconds: float) -> dict:
        before, cpu = self.control(), measuring.cpu_seconds(pid)
        await asyncio.sleep(seconds)
        after, cpu = self.control(), measuring.cpu_seconds(pid) - cpu
        return {
            "cpu_us": cpu * 1e6,
            "events": after["events"] - before["events"],
            "answered": after["answered"] - before["answered"],
            "seconds": after["at"] - before["at"],
        }

    def callers(self, side, port: int) -> Callers:
        body = '{"input": "Why is the sky blue?", "stream": true}'
        return self.callers_of(side, port, "/api/v1/generate/1", body, *MARKS[side.key])

    def callers_of(self, side, port: int, path: str, body: str, word: bytes, end: bytes) -> Callers:
        lines = [f"POST {path} HTTP/1.1", "host: localhost",
                 "content-type: application/json", f"content-length: {len(body)}", *side.headers,
                 "", body]  # fmt: skip
        return Callers(port, "\r\n".join(lines).encode(), word, end)

    def control(self, **values) -> dict:
        query = "&".join(f"{name}={value}" for name, value in values.items())
        return measuring.ask(f"{self.bench.upstream}/control?{query}")

    def note(self, run: dict) -> None:
        self.bench.runs.append(run)
        figures = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in run.items()
            if name not in {"kind", "round", "side"}
        )
        print(f"  {run['kind']:6} {run['round']}  ({run['side']}) {figures}", flush=True)
