"""What limits cost, and that statements of limits and of rows do not deadlock.

    python benchmarks/limits.py cost [--turns 6] [--seconds 8]
    python benchmarks/limits.py deadlocks [--seconds 60]

`cost` serves one process under wrk, with three limits on the key and without them in turn, so that
what else the machine does meets both: CPU per generation and statements per 1,000 requests, medians
over the turns and the median of the pairs' ratios. `deadlocks` lets two processes share budgets
that are nearly spent all the time, with callers at both, and asks PostgreSQL about deadlocks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import asyncpg
import measuring

from tests.support import service
from tests.support.postgres import PrivatePostgres

SERVED = {
    "LLM_PROVIDER": "simulated",
    "LLM_SIMULATED_LATENCY": "0.1",
    "LLM_PRICES": "simulated=1/10",
    "LOG_LEVEL": "ERROR",
}
PLENTY = 10**15
APPLIED_S = 6.0  # within which a process has read a change of its limits
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


async def prepare(server: PrivatePostgres) -> str:
    """Returns a key for all users."""
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
    said = await asyncio.to_thread(
        service.manage, server.url, "apikey", "create", "bench", "--all-users",
        "--rpm", str(PLENTY), "--tpm", str(PLENTY), "--budget", "900000000/month",
    )  # fmt: skip
    return next(line for line in said.splitlines() if line.startswith("stc_"))


async def cost(options: argparse.Namespace, server: PrivatePostgres, key: str) -> None:
    link = await asyncpg.connect(server.url)
    figures: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    amounts = dict(await link.fetch("SELECT id, amount FROM generation_limit"))
    async with service.running(server.url, **SERVED) as served:
        url = f"http://127.0.0.1:{served.port}/"
        pid = served.process.pid
        await call(url, key, 3, options.callers)
        for turn in range(2 * options.turns):
            limited = turn % 4 in {0, 3}
            for row, amount in amounts.items():
                await link.execute(
                    "UPDATE generation_limit SET amount = $2 WHERE id = $1",
                    row,
                    amount if limited else None,
                )
            await asyncio.sleep(APPLIED_S)
            await call(url, key, 1, options.callers)
            cpu, pg = measuring.cpu_seconds(pid), measuring.cpu_seconds(server.pid)
            statements = await served.metric(HELD)
            reported = await call(url, key, options.seconds, options.callers)
            cpu, pg = measuring.cpu_seconds(pid) - cpu, measuring.cpu_seconds(server.pid) - pg
            statements = await served.metric(HELD) - statements
            done = reported["requests"] - reported["errors"]
            assert not reported["errors"], reported
            figures[limited].append((cpu / done * 1e6, pg / done * 1e6, statements / done * 1e3))
    await link.close()
    names = ("CPU of the service (µs)", "CPU of PostgreSQL (µs)", "statements per 1,000")
    for at, name in enumerate(names):
        without, within = ([run[at] for run in figures[limited]] for limited in (False, True))
        ratios = [b / a for a, b in zip(without, within, strict=True)]
        print(
            f"{name}: {statistics.median(without):.1f} without, {statistics.median(within):.1f}"
            f" with three limits; ratio {statistics.median(ratios):.3f}"
            f" ({min(ratios):.3f}-{max(ratios):.3f})"
        )


async def deadlocks(options: argparse.Namespace, server: PrivatePostgres, key: str) -> None:
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
    both = [service.running(server.url, **SERVED) for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        served = [await stack.enter_async_context(each) for each in both]
        reported = await asyncio.gather(
            *(
                call(f"http://127.0.0.1:{each.port}/", key, options.seconds, options.callers)
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


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cost", "deadlocks"])
    parser.add_argument("--turns", type=int, default=6, help="of each side")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--callers", type=int, default=300)
    parser.add_argument("--binaries", type=Path, help="of another PostgreSQL")
    options = parser.parse_args()
    os.environ.setdefault("STACCATO_JOURNAL_DIR", tempfile.mkdtemp(prefix="staccato-bench-"))
    server = PrivatePostgres(options.binaries, fsync="off", max_connections="200")
    try:
        server.start()
        key = await prepare(server)
        await {"cost": cost, "deadlocks": deadlocks}[options.what](options, server, key)
    finally:
        server.remove()


if __name__ == "__main__":
    asyncio.run(main())
