"""What those who are admitted wait for when three times as many come as a process is tuned for.

    python benchmarks/overload.py              # in about two minutes

Tunes one process as docs/operations.md says: finds the rate at which a generation still takes no
longer than wanted, and sets STACCATO_MAX_IN_FLIGHT to that rate × a generation's mean time. Then
offers once and three times that rate, in an open loop: callers arrive on schedule, and their time
counts from when they were due. One core serves; callers, LLM and PostgreSQL share the others.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import measuring
import run
from lineup import STACCATO_ENV, Side, uvicorn

TARGET = 1.5  # accepted p99 at three times the load, against the one at full load
WARM_S = 3


class Crowd(measuring.Pace):
    """A pace that tells refusals apart, and how long they took."""

    def __init__(self, port, headers):
        body = '{"input": "Why is the sky blue?"}'
        lines = [
            "POST /api/v1/generate/1 HTTP/1.1",
            "host: localhost",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *headers,
        ]
        lines += ["", body]
        super().__init__(port, "\r\n".join(lines).encode())
        self.statuses = Counter()
        self.refusals = []

    def done(self, caller, *, ok):
        self.statuses[caller.buffer[9:12].decode()] += 1
        if not ok:
            now = asyncio.get_running_loop().time()
            self.refusals.append((now - caller.due) * 1000)
        super().done(caller, ok=ok)


class Overload(run.Bench):
    def side(self, limit):
        return Side(
            "b", "Staccato", uvicorn("project.asgi:application"), (),
            env={**STACCATO_ENV, "STACCATO_MAX_IN_FLIGHT": str(limit)},
        )  # fmt: skip

    async def offer(self, port, rate, seconds):
        crowd = Crowd(port, self.headers)
        await crowd.run(rate, seconds)
        crowd.close()
        return crowd

    async def tune(self):
        """(requests/s, requests in flight) that one process carries within the wanted time."""
        found = None
        with self.serving(self.side(100_000)) as (port, _pid):
            rate = self.options.start
            while time.monotonic() < self.tune_until:
                crowd = await self.offer(port, rate, 5)
                p99 = measuring.percentiles(crowd.times)["p99"]
                beyond = p99 - self.options.llm * 1000
                print(
                    f"  {rate:6.0f}/s: p99 {p99:.0f} ms, {beyond:.0f} ms beyond the LLM", flush=True
                )
                if beyond > self.options.within or crowd.refusals or crowd.lost:
                    break
                found = rate, math.ceil(rate * mean(crowd.times) / 1000)
                rate *= 1.25
        if found is None:
            raise SystemExit("not even the first rate was carried in time; see --start")
        return found

    async def compare(self):
        with self.surroundings():
            self.headers = self.make_key()
            self.control(self.options.llm, self.options.llm)
            self.tune_until = time.monotonic() + 90
            rate, limit = await self.tune()
            print(f"tuned: {rate:.0f}/s, STACCATO_MAX_IN_FLIGHT={limit}\n")
            p99s = []
            with self.serving(self.side(limit)) as (port, pid):
                for times in (1, 3):
                    await self.offer(port, rate, WARM_S)
                    memory, cpu = measuring.memory_kb(pid), measuring.cpu_seconds(pid)
                    crowd = await self.offer(port, rate * times, self.options.seconds)
                    cpu = (measuring.cpu_seconds(pid) - cpu) / self.options.seconds
                    p99s.append(self.report(times, crowd))
                    grown = (measuring.memory_kb(pid) - memory) / 1024
                    print(
                        f"      {cpu:.0%} of a core, memory {memory / 1024:.0f} MB {grown:+.1f} MB"
                    )
            ratio = p99s[1] / p99s[0]
            print(f"\naccepted p99, 3 × against 1 ×: {ratio:.2f} (at most {TARGET})")

    def report(self, times, crowd):
        accepted, refused = map(measuring.percentiles, (crowd.times, crowd.refusals))
        llm = self.options.llm * 1000
        print(
            f"{times} × {dict(crowd.statuses)}, {crowd.lost} lost\n"
            f"      accepted: {len(crowd.times) / self.options.seconds:.0f}/s,"
            f" p50 {accepted['p50']:.0f} ms, p99 {accepted['p99']:.0f} ms"
            f" ({accepted['p99'] - llm:.0f} ms beyond the LLM)\n"
            f"      refused:  p50 {refused['p50']:.1f} ms, p99 {refused['p99']:.1f} ms"
        )
        return accepted["p99"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llm", type=float, default=1.0, help="seconds that the LLM takes (1)")
    parser.add_argument("--within", type=float, default=150, help="wanted: ms beyond that (150)")
    parser.add_argument("--start", type=float, default=100, help="first rate to try, per s (100)")
    parser.add_argument("--seconds", type=float, default=15, help="of each load (15)")
    asyncio.run(Overload(parser.parse_args()).compare())


if __name__ == "__main__":
    main()
