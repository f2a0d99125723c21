"""Staccato beside what a user would pick instead: `make bench`, `make bench QUICK=1`.

Streams are measured beside a bare relay of bytes, and then many are open at once in one process:
`--parts streams,crowd` runs these alone, `--parts dialects` the vendors' routes beside ours. Every
side is served by one uvicorn worker on a core of its own; wrk, the simulated LLM and PostgreSQL
share the others. "CPU" is user+system time of the server process, divided by the calls that the
simulated LLM answered meanwhile. Rounds are interleaved; medians are shown with their spread. Read
the ratios: the absolute figures are this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import measuring
import plot
import report
import uvloop
from dialects import Dialects
from lineup import CORES, FLAT, OTHER_CORES, STACCATO_ENV, find_sides
from streaming import Streaming

from tests.support.postgres import PrivatePostgres

HERE = Path(__file__).resolve().parent
LLM_S = 0.1  # where speed is measured
FLAT_LLM_S = 5.0  # where 5,000 wait
CROWD_S = 20.0  # that all streams are open
RATE = 400  # requests a second in the series over requests in flight
START_LIMIT_S = 60
SEED = """
from django.contrib.auth import get_user_model
from generation.models import Profile
users = get_user_model()
users.objects.bulk_create([users(pk=n, username=f"bench{n}") for n in range(1, 101)])
prompt = "Tell a curious beginner something worth knowing about connection pools."
Profile.objects.bulk_create([Profile(user_id=n, prompt_template=prompt) for n in range(1, 101)])
"""


class Bench:
    def __init__(self, options):
        self.options = options
        self.runs = []
        self.last_port = 21_000

    # --- what all sides share -----------------------------------------------------------------

    @contextlib.contextmanager
    def surroundings(self):
        os.sched_setaffinity(0, OTHER_CORES)  # whatever is started from here inherits it
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with contextlib.ExitStack() as stack:
            postgres = PrivatePostgres()
            stack.callback(postgres.remove)
            postgres.start()
            self.database = postgres.url
            self.journal = stack.enter_context(tempfile.TemporaryDirectory())
            upstream = subprocess.Popen(
                [sys.executable, HERE / "upstream.py"], stdout=subprocess.PIPE, text=True
            )
            stack.callback(upstream.wait)
            stack.callback(upstream.kill)
            self.upstream = f"http://127.0.0.1:{upstream.stdout.readline().strip()}"
            self.manage("migrate", "--verbosity", "0")
            self.manage("shell", "--verbosity", "0", "-c", SEED)
            yield

    def environment(self, more):
        mine = {
            "DATABASE_URL": self.database,
            "ANTHROPIC_BASE_URL": self.upstream,
            "STACCATO_JOURNAL_DIR": self.journal,
            "PYTHONPATH": str(ROOT),
            **more,
        }
        return {name: value for name, value in os.environ.items() if not foreign(name)} | mine

    def manage(self, *arguments):
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, check=True, text=True,
            env=self.environment(STACCATO_ENV), stdout=subprocess.PIPE,
        )  # fmt: skip
        return done.stdout

    def make_key(self):
        """Production asks each request for an API key."""
        key = self.manage("apikey", "create", "bench", "--all-users").strip()
        return (f"authorization: Bearer {key}",)

    # --- one side at a time -------------------------------------------------------------------

    @contextlib.contextmanager
    def serving(self, side):
        self.last_port += 1
        port = self.last_port
        with tempfile.TemporaryFile() as log:
            server = subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, sorted(side.cores))),
                 *(word.format(port=port) for word in side.command)], cwd=ROOT,
                env=self.environment(side.env), stdout=log, stderr=log,
            )  # fmt: skip
            try:
                wait_for(port, server)
                yield port, server.pid
            except BaseException:
                log.seek(0)
                print(log.read().decode(errors="replace")[-3000:], file=sys.stderr)
                raise
            finally:
                server.terminate()
                try:
                    server.wait(10)
                except subprocess.TimeoutExpired:
                    for member in measuring.family(server.pid):
                        os.kill(member, 9)
                    server.wait()

    def control(self, low, high):
        return measuring.ask(f"{self.upstream}/control?low={low}&high={high}")

    async def load(self, side, port, pid, in_flight, low, high, warm, window):
        """wrk for warm + window seconds; what happened within the window."""
        self.control(low, high)
        headers = [header.format(upstream=self.upstream) for header in side.headers]
        seconds = round(warm + window + 1)
        wrk = await asyncio.create_subprocess_exec(
            "wrk", "-t1", f"-c{in_flight}", f"-d{seconds}s", f"--timeout={seconds}s",
            "-s", HERE / "post.lua", f"http://127.0.0.1:{port}/", *headers,
            env={**os.environ, **side.wrk_env}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with measuring.ConnectionCount(self.database) as connections:
                await asyncio.sleep(warm)
                before, cpu = measuring.ask(f"{self.upstream}/control"), measuring.cpu_seconds(pid)
                await asyncio.sleep(window)
                after = measuring.ask(f"{self.upstream}/control")
                cpu = measuring.cpu_seconds(pid) - cpu
                memory = measuring.memory_kb(pid)
                said, _ = await wrk.communicate()
        finally:
            if wrk.returncode is None:
                wrk.kill()
        told = json.loads(said.decode().strip().splitlines()[-1])
        answered, elapsed = after["answered"] - before["answered"], after["at"] - before["at"]
        return {
            "side": side.key,
            "in_flight": in_flight,
            "per_s": answered / elapsed,
            "cpu_us": cpu / answered * 1e6 if answered else None,
            "core_share": cpu / elapsed,
            "upstream_idle": 1 - (after["cpu_s"] - before["cpu_s"]) / elapsed,
            "in_llm_peak": after["peak_waiting"],
            "connections": connections.peak,
            "checked_out": checked_out(port, headers),
            "memory_kb": memory,
            "requests": told["requests"],
            "errors": told["errors"] + told["timeouts"],
        }

    async def overhead(self, side, port, rate, seconds):
        """Half load, paced by the clock: what a caller waits beyond the LLM's time."""
        self.control(LLM_S, LLM_S)
        headers = [header.format(upstream=self.upstream) for header in side.headers]
        body = side.wrk_env.get("BENCH_BODY", '{"input": "Why is the sky blue?"}')
        path = side.wrk_env.get("BENCH_PATH", "/api/v1/generate/1")
        lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json",
                 f"content-length: {len(body)}", *headers, "", body]  # fmt: skip
        pace = measuring.Pace(port, "\r\n".join(lines).encode())
        await pace.run(rate, 2)  # opens connections
        pace.times.clear()
        await pace.run(rate, seconds)
        pace.close()
        found = measuring.percentiles(pace.times)
        return {
            "half_load_per_s": rate,
            "half_load_failed": pace.failed + pace.lost,
            "p50_ms": found["p50"] - LLM_S * 1000,
            "p99_ms": found["p99"] - LLM_S * 1000,
        }

    # --- the plan -----------------------------------------------------------------------------

    async def speed(self, side, round_number):
        """At saturation with 500 in flight, then at half of that."""
        with self.serving(side) as (port, pid):
            run = await self.load(
                side, port, pid, 500, LLM_S, LLM_S, self.options.warm, self.options.window
            )
            run |= await self.overhead(side, port, max(5, run["per_s"] / 2), self.options.window)
        self.note({"kind": "speed", "round": round_number, **run})

    async def series(self, side, in_flight, round_number):
        """The same number of requests a second, from ever more in flight at once."""
        llm = in_flight / RATE
        with self.serving(side) as (port, pid):
            run = await self.load(
                side, port, pid, in_flight, llm * 0.5, llm * 1.5, llm * 1.5 + 2,
                max(self.options.window, llm),
            )  # fmt: skip
        self.note({"kind": "series", "round": round_number, **run})

    async def flat(self, side):
        """5,000 in flight, all of them at once."""
        with self.serving(side) as (port, pid):
            run = await self.load(
                side, port, pid, FLAT, FLAT_LLM_S, FLAT_LLM_S, FLAT_LLM_S + 3,
                max(self.options.window, FLAT_LLM_S),
            )  # fmt: skip
        self.note({"kind": "flat", "round": 1, **run})

    def note(self, run):
        self.runs.append(run)
        print(
            f"  {run['kind']:6} {run['round']}  ({run['side']}) {run['in_flight']:5} in flight:"
            f" {run['per_s']:7.1f}/s, {run['cpu_us'] or 0:8.0f} µs CPU,"
            f" {run['connections']:3} connections, {run['errors']} errors,"
            f" upstream {run['upstream_idle']:.0%} idle",
            flush=True,
        )

    async def whole(self, sides):
        chosen = [sides[key] for key in self.options.sides if key in sides]
        for round_number in range(1, self.options.rounds + 1):
            for side in chosen:
                await self.speed(side, round_number)
        for round_number in range(1, self.options.series_rounds + 1):
            for in_flight in self.options.in_flight:
                for side in chosen:
                    if in_flight in side.series:
                        await self.series(side, in_flight, round_number)
        if "b" in self.options.sides:
            await self.flat(sides["b"])

    async def run(self):
        options = self.options
        with self.surroundings():
            sides = {side.key: side for side in find_sides(self.make_key())}
            commit = await measuring.commit_ms(self.database)
            if "whole" in options.parts:
                await self.whole(sides)
            if "streams" in options.parts:
                await Streaming(self).run(sides, options.rounds)
            if "dialects" in options.parts:
                await Dialects(self, Streaming(self)).run(sides, options.rounds)
            if "crowd" in options.parts:
                await Streaming(self).crowd(sides["b"], options.crowd, options.gap, CROWD_S)
        measured = {run["side"] for run in self.runs}
        return {
            "machine": {
                "cores": len(CORES),
                "model": cpu_model(),
                "python": platform.python_version(),
            },
            "commit_ms": commit,
            "llm_s": LLM_S,
            "rate": RATE,
            "sides": {key: side.title for key, side in sides.items() if key in measured},
            "runs": self.runs,
        }


def foreign(name):
    """Settings of this shell's that would reach the sides."""
    prefixes = ("DB_", "LLM_", "ANTHROPIC_", "OPENAI_", "STACCATO_", "DJANGO_")
    return name.startswith(prefixes) or name in {"DATABASE_URL", "DEBUG", "WEB_CONCURRENCY"}


def wait_for(port, server):
    import socket

    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            time.sleep(0.5)  # a supervisor may bind before its workers are up
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def checked_out(port, headers):
    with contextlib.suppress(OSError, ValueError, KeyError):
        pool = measuring.ask(f"http://127.0.0.1:{port}/api/v1/pool", headers)
        return pool["peak_checked_out"]
    return None


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, in three minutes")
    parser.add_argument("--sides", default="", help="letters of the sides to measure (all)")
    parser.add_argument("--parts", default="", help="of whole,streams,dialects,crowd (all)")
    parser.add_argument(
        "--crowd", type=int, default=FLAT, help="streams open at once (%(default)s)"
    )
    parser.add_argument(
        "--gap", type=float, default=0.25, help="s between their words (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, help="of the speed test and of streams")
    parser.add_argument("--series-rounds", type=int, help="of the series over requests in flight")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    quick = options.quick
    options.sides = options.sides or ("abce" if quick else "abcdepgw")
    options.parts = (
        options.parts or ("whole,streams" if quick else "whole,streams,dialects,crowd")
    ).split(",")
    options.rounds = options.rounds or (1 if quick else 3)
    options.series_rounds = options.series_rounds or (1 if quick else 3)
    options.in_flight = (100, 1000) if quick else (100, 500, 1000, 2000, FLAT)
    options.warm, options.window = (2, 4) if quick else (3, 8)
    if {"whole", "dialects"} & set(options.parts) and not shutil.which("wrk"):
        sys.exit("make bench needs wrk: apt-get install wrk, or brew install wrk")
    # Told to stop, it takes along what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    started = time.monotonic()
    found = uvloop.run(Bench(options).run())
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.json"
    results.write_text(json.dumps(found, indent=1))
    plot.draw(found, options.output / "results.svg")
    print(f"\n{report.show(found)}\n")
    took = time.monotonic() - started
    print(f"{results} and {results.with_suffix('.svg').name}, in {took:.0f} s")


if __name__ == "__main__":
    main()
