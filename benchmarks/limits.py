"""What limits cost, and that statements of limits and of rows do not deadlock.

    python benchmarks/limits.py cost [--turns 6] [--seconds 8]
    python benchmarks/limits.py deadlocks [--seconds 60]
    python benchmarks/limits.py flood [--seconds 6] [--callers 600]

`cost` serves one process under wrk, by turns with a key that has three limits and with one that has
none: CPU per generation and statements per 1,000 requests, medians over the turns and the median of
the pairs' ratios. `deadlocks` lets two processes share budgets
that are nearly spent all the time, with callers at both, and asks PostgreSQL about deadlocks.
`flood` serves a process of 200 places and says how long the answers of key B take: alone, while key
A fills its share, while many more callers of A than there are places repeat at once, and while a
limit refuses A's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import asyncpg
import measuring

from tests.support import http, service
from tests.support.postgres import PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVED = {
    "LLM_PROVIDER": "anthropic",
    "ANTHROPIC_API_KEY": "canary",
    "LLM_PRICES": "anthropic=1/10",
    "LOG_LEVEL": "ERROR",
}
PAUSE_OF_LLM_S = 0.1
PLENTY = 10**9
PAUSE_S = 0.5  # until a slice before has ended for certain
USERS = 100
HELD = "staccato_db_connection_hold_seconds_count"  # a connection for each statement


async def call(url: str, key: str, seconds: float, callers: int) -> dict:
    wrk = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{callers}", f"-d{seconds:g}s", "--timeout=30s",
        "-s", HERE / "post.lua", url, f"authorization: Bearer {key}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await wrk.communicate()
    return json.loads(said.decode().strip().splitlines()[-1])


async def prepare(server: PrivatePostgres) -> tuple[str, str]:
    """Returns two keys for all users: one with three limits, and one without."""
    await asyncio.to_thread(service.manage, server.url, "migrate", "-v0")
    link = await asyncpg.connect(server.url)
    await link.execute(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_staff,"
        " is_active, is_superuser, date_joined)"
        " SELECT n, 'user' || n, '', '', '', '', false, true, false, now()"
        f" FROM generate_series(1, {USERS}) AS n"
    )
    await link.execute(
        "INSERT INTO generation_profile (user_id, prompt_template, system, provider, model)"
        f" SELECT n, 'Say: $input', '', '', '' FROM generate_series(1, {USERS}) AS n"
    )
    await link.close()
    three = ("--rpm", str(PLENTY), "--tpm", str(PLENTY), "--budget", "900000000/month")
    limited = await create_key(server, "limited", *three)
    return limited, await create_key(server, "free")


async def create_key(server: PrivatePostgres, name: str, *limits: str) -> str:
    said = await asyncio.to_thread(
        service.manage, server.url, "apikey", "create", name, "--all-users", *limits
    )
    return next(line for line in said.splitlines() if line.startswith("stc_"))


async def cost(options: argparse.Namespace, server: PrivatePostgres, keys: tuple[str, str]) -> None:
    """Asks an LLM over HTTP, as the figures of docs/performance.md do. Each turn is a slice with
    either key, whichever comes first in turn. A slice is short, so that what else the machine does
    meets both sides of a pair."""
    figures: dict[str, list[tuple[float, float, float]]] = {key: [] for key in keys}
    async with contextlib.AsyncExitStack() as stack:
        environment = stack.enter_context(an_llm())
        served = await stack.enter_async_context(service.running(server.url, **environment))
        url = f"http://127.0.0.1:{served.port}/"
        for key in keys * 2:
            await call(url, key, 3, options.callers)
        for turn in range(options.turns):
            for key in keys if turn % 2 else reversed(keys):
                await asyncio.sleep(PAUSE_S)
                await call(url, key, 1, options.callers)
                figures[key].append(await slice_of(served, server, key, options))
    limited, free = (figures[key] for key in keys)
    names = ("CPU of the service (µs)", "CPU of PostgreSQL (µs)", "statements per 1,000")
    for at, name in enumerate(names):
        without, within = ([run[at] for run in side] for side in (free, limited))
        ratios = sorted(b / a for a, b in zip(without, within, strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name}: {statistics.median(without):.1f} without, {statistics.median(within):.1f}"
            f" with three limits; ratio of pairs {middle:.3f} (quartiles {low:.3f}-{high:.3f})"
        )


async def slice_of(
    served: service.Service, server: PrivatePostgres, key: str, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Returns for each generation what it took of the service's and of PostgreSQL's CPU in µs, and
    the statements of 1,000 of them."""
    pids = (served.process.pid, server.pid)
    before = [*map(measuring.cpu_seconds, pids), await served.metric(HELD)]
    url = f"http://127.0.0.1:{served.port}/"
    reported = await call(url, key, options.seconds, options.callers)
    after = [*map(measuring.cpu_seconds, pids), await served.metric(HELD)]
    done = reported["requests"] - reported["errors"]
    assert not reported["errors"], reported
    service_s, postgres_s, statements = (b - a for a, b in zip(before, after, strict=True))
    return service_s / done * 1e6, postgres_s / done * 1e6, statements / done * 1e3


@contextlib.contextmanager
def an_llm() -> Iterator[dict[str, str]]:
    """Yields the environment of a service that asks it."""
    process = subprocess.Popen(
        [sys.executable, HERE / "upstream.py"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        measuring.ask(f"{url}/control?low={PAUSE_OF_LLM_S}&high={PAUSE_OF_LLM_S}")
        yield {**SERVED, "ANTHROPIC_BASE_URL": url}
    finally:
        process.kill()
        process.wait()


async def deadlocks(
    options: argparse.Namespace, server: PrivatePostgres, keys: tuple[str, str]
) -> None:
    link = await asyncpg.connect(server.url)
    for scope, unit, amount, window in (
        ("user", "requests", 40, "minute"),
        ("user", "tokens", 100_000, "day"),
        ("key", "in_flight", 60, ""),
        ("all", "usd", 10**9, "week"),
        ("all", "tokens", PLENTY, "month"),
    ):
        await link.execute(
            'INSERT INTO generation_limit (scope, unit, amount, "window", provider, model, zone,'
            " is_enforced, extra, generation) VALUES ($1, $2, $3, $4, '', '', '', true, 0, 0)",
            scope, unit, amount, window,
        )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        environment = stack.enter_context(an_llm())
        both = [service.running(server.url, **environment) for _ in range(2)]
        served = [await stack.enter_async_context(each) for each in both]
        reported = await asyncio.gather(
            *(
                call(f"http://127.0.0.1:{each.port}/", keys[0], options.seconds, options.callers)
                for each in served
            )
        )
        asked = [await each.metric("staccato_lease_statements_total") for each in served]
    seen = await link.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    rows = await link.fetchval("SELECT count(*) FROM generation_generationlog")
    over = await link.fetch(
        "SELECT r.unit, r.amount, w.committed FROM generation_limitwindow AS w"
        " JOIN generation_limit AS r ON r.id = w.limit_id"
        " WHERE w.committed > r.amount AND r.unit <> 'in_flight'"
        """ AND r."window" IN ('day', 'week', 'month')"""
    )
    await link.close()
    requests = sum(each["requests"] for each in reported)
    print(
        f"{requests} requests, {rows} rows, {sum(asked):g} lease statements in"
        f" {options.seconds:g} s: {seen} deadlocks, {len(over)} budgets overspent"
    )


async def flood(
    options: argparse.Namespace, server: PrivatePostgres, keys: tuple[str, str]
) -> None:
    environment = {
        "LLM_PROVIDER": "simulated",
        "LLM_SIMULATED_LATENCY": "0.2",
        "LOG_LEVEL": "ERROR",
        "STACCATO_MAX_IN_FLIGHT": "200",
    }
    a, b = keys[1], await create_key(server, "b")
    limited = await create_key(server, "refused", "--rpm", "60")
    floods = {
        "alone": ("", 0),
        "while A fills its share": (a, 170),
        "in a flood beyond A's share": (a, options.callers),
        "in a flood beyond a limit of A's": (limited, options.callers),
    }
    async with service.running(server.url, **environment) as served:
        url = f"http://127.0.0.1:{served.port}/"
        for name, (key, callers) in floods.items():
            seconds = options.seconds
            load = asyncio.create_task(call(url, key, seconds + 3, callers)) if key else None
            await asyncio.sleep(2)
            before = measuring.cpu_seconds(served.process.pid)
            statements = await served.metric(HELD)
            quiet = await ask_for(served.port, b, seconds)
            spent = measuring.cpu_seconds(served.process.pid) - before
            statements = await served.metric(HELD) - statements
            answered = [took for status, took in quiet if status == 200]
            print(
                f"B {name}: {len(answered)} of {len(quiet)} answered, median"
                f" {statistics.median(answered or [seconds]) * 1e3:.0f} ms, longest"
                f" {max(answered or [seconds]) * 1e3:.0f} ms; the process was busy for"
                f" {spent / seconds:.0%} and took {statements / seconds:.0f} statements a second"
            )
            if load:
                print(f"   A: {await load}")


async def ask_for(port: int, key: str, seconds: float) -> list[tuple[int, float]]:
    """Ten callers, each with the next request when the last is answered. Returns the status of each
    answer, and the seconds that it took."""
    answers: list[tuple[int, float]] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def ask(user: int) -> None:
        while (began := loop.time()) < end:
            path, header = f"/api/v1/generate/{user}", ("Authorization", f"Bearer {key}")
            answer = await http.request(port, "POST", path, {"input": "a"}, [header])
            answers.append((answer.status, loop.time() - began))

    await asyncio.gather(*(ask(user) for user in range(1, 11)))
    return answers


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cost", "deadlocks", "flood"])
    parser.add_argument("--turns", type=int, default=16, help="of each side")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--callers", type=int, default=300)
    parser.add_argument("--binaries", type=Path, help="of another PostgreSQL")
    options = parser.parse_args()
    os.environ.setdefault("STACCATO_JOURNAL_DIR", tempfile.mkdtemp(prefix="staccato-bench-"))
    server = PrivatePostgres(options.binaries, fsync="off", max_connections="200")
    try:
        server.start()
        keys = await prepare(server)
        measure = {"cost": cost, "deadlocks": deadlocks, "flood": flood}[options.what]
        await measure(options, server, keys)
    finally:
        server.remove()


if __name__ == "__main__":
    asyncio.run(main())
