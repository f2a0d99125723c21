"""What callers of the API notice while five people browse the admin.

    python benchmarks/browsing.py [--rounds 3] [--seconds 20] [--rows 200000] [--rate 200]

Serves a log of so many rows and so many requests/s, in an open loop: callers arrive on schedule,
and their time counts from when they were due. An LLM over HTTP answers after a second. Meanwhile
nobody browses, or five people do, in a process of its own for pages (STACCATO_SERVE) or in the one
that serves all. Each person opens page after page, with a second to read it. Prints percentiles of
each round, and the medians of the rounds' ratios to the round's first part, in which nobody
browses: of the whole time, and of the part of it that is not the LLM's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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
    **service.PRODUCTION,
    "DEBUG": "0",
    "LLM_PROVIDER": "anthropic",
    "ANTHROPIC_API_KEY": "k",
    "LOG_LEVEL": "ERROR",
}
KEPT = ("--timeout-keep-alive", "120")  # else it closes connections just as they are used
LLM_S = 1
NICE = 10  # of the process for pages, as docs/operations.md has it
USERS = 100
PATH = "/api/v1/generate/1"
ASKED = {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}
LOGS = "/admin/generation/generationlog/"
MODES = ("nobody", "own process", "same process")

IDS = """
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT n, moment, (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
    || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id
FROM generate_series(1, $1) AS n,
    LATERAL (SELECT day + (statement_timestamp() - day) * n / $1 AS moment
        FROM (SELECT date_trunc('day', statement_timestamp(), 'UTC') AS day) AS today) AS spread
"""
VARIED = {
    "generation_generationlog": {
        "id": "made.id",
        "created_at": "made.moment",
        "user_id": f"1 + made.n % {USERS}",
        "model": "'model-' || made.n % 7",
        "status": "CASE WHEN made.n % 50 = 0 THEN 'failed' ELSE one.status END",
        "error_type": "CASE WHEN made.n % 50 = 0 THEN 'llm-failed' ELSE '' END",
        "latency_ms": "2000 + made.n % 6000",
        "request_id": "'request-' || made.n",
    },
    "generation_generationbody": {"id": "made.id"},
}


async def fill(link: asyncpg.Connection, rows: int) -> None:
    """Multiplies the only row of the log."""
    async with link.transaction():
        await link.execute(IDS.replace("$1", str(rows)))
        for table, varied in VARIED.items():
            columns = [
                row["name"]
                for row in await link.fetch(
                    "SELECT quote_ident(attname) AS name FROM pg_attribute WHERE attrelid ="
                    f" '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
                    " AND attgenerated = ''"
                )
            ]
            values = ", ".join(varied.get(name, f"one.{name}") for name in columns)
            await link.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM made,"
                f" (SELECT * FROM {table} LIMIT 1) AS one"
            )
    await link.execute("VACUUM ANALYZE")


async def prepare(
    server: PrivatePostgres, served: dict[str, str], rows: int
) -> tuple[str, list[str], list[str]]:
    """Returns an API key for all users, five people's cookies, and the addresses of pages."""
    environment = {**served, "STACCATO_JOURNAL_DIR": tempfile.mkdtemp()}
    await asyncio.to_thread(service.manage, server.url, "migrate", "-v0", **environment)
    link = await asyncpg.connect(server.url)
    await link.execute(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_staff,"
        " is_active, is_superuser, date_joined)"
        " SELECT n, 'user' || n, '', '', '', '', n <= 5, true, n <= 5, now()"
        f" FROM generate_series(1, {USERS}) AS n"
    )
    said = await asyncio.to_thread(
        service.manage, server.url, "apikey", "create", "bench", "--all-users", **environment
    )
    key = next(line for line in said.splitlines() if line.startswith("stc_"))
    sessions = (
        "from django.contrib.auth import get_user_model; from django.test import Client\n"
        "for user in get_user_model().objects.filter(is_staff=True):\n"
        "    client = Client(); client.force_login(user)\n"
        "    print('session', client.cookies['sessionid'].value)\n"
    )
    said = await asyncio.to_thread(
        service.manage, server.url, "shell", "--no-imports", "-c", sessions, **environment
    )
    cookies = [line.split()[1] for line in said.splitlines() if line.startswith("session ")]
    async with service.running(server.url, **environment) as running:
        answer = await http.request(
            running.port, "POST", PATH, ASKED, [("authorization", f"Bearer {key}")]
        )
        assert answer.status == 200, answer.body
    await fill(link, rows)
    some = [str(row["id"]) for row in await link.fetch(
        "SELECT id FROM generation_generationlog TABLESAMPLE SYSTEM (1) LIMIT 20"
    )]  # fmt: skip
    await link.close()
    pages = ["/admin/", LOGS, f"{LOGS}?status=failed", f"{LOGS}?model=model-3"]
    pages += [f"{LOGS}{row}/change/" for row in some] + ["/admin/generation/maintenance/"]
    return key, cookies, pages


async def browse(port: int, cookie: str, pages: list[str], times: list[float]) -> None:
    """As a person does, until cancelled."""
    # Lists and the dashboard more often than any one detail page.
    for turn in itertools.count():
        page = pages[turn % 4] if turn % 2 else pages[turn % len(pages)]
        begun = time.monotonic()
        answer = await http.request(port, "GET", page, headers=[("cookie", f"sessionid={cookie}")])
        if answer.status != 200:
            raise SystemExit(f"{page} answers {answer.status}")
        times.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(1)


async def measure(port, pages_port, key, cookies, pages, options) -> dict[str, float]:
    """Returns percentiles of the API and of pages, in ms. Nobody browses without a `pages_port`."""
    lines = [f"authorization: Bearer {key}", "content-type: application/json"]
    body = json.dumps(ASKED).encode()
    lines += [f"content-length: {len(body)}"]
    pace = measuring.Pace(port, http.head(*lines, path=PATH) + body)
    times: list[float] = []
    await pace.run(options.rate, 3)
    people = [
        asyncio.create_task(browse(pages_port, cookie, pages, times))
        for cookie in (cookies if pages_port else [])
    ]
    await asyncio.sleep(2 if people else 0)
    pace.times.clear()
    await pace.run(options.rate, options.seconds)
    for person in people:
        if person.done():
            person.result()
        person.cancel()
    await asyncio.gather(*people, return_exceptions=True)
    pace.close()
    if pace.failed or pace.lost:
        raise SystemExit(f"{pace.failed} requests failed, {pace.lost} were lost")
    whole = measuring.percentiles(pace.times)
    ours = {f"our {name}": value - LLM_S * 1000 for name, value in whole.items()}
    return {**whole, **ours, "page p50": statistics.median(times or [0.0]), "pages": len(times)}


async def round_of(server, served, key, cookies, pages, options) -> dict[str, dict[str, float]]:
    figures = {}
    with tempfile.TemporaryDirectory() as journal:
        env = {**served, "STACCATO_JOURNAL_DIR": journal}
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(
                service.running(server.url, *KEPT, **env, STACCATO_SERVE="api")
            )
            own = await stack.enter_async_context(
                service.running(server.url, **env, STACCATO_SERVE="pages")
            )
            os.setpriority(os.PRIO_PROCESS, own.process.pid, NICE)
            for mode, port in (("nobody", None), ("own process", own.port)):
                figures[mode] = await measure(api.port, port, key, cookies, pages, options)
        async with service.running(server.url, *KEPT, **env) as both:
            figures["same process"] = await measure(
                both.port, both.port, key, cookies, pages, options
            )
    return figures


@contextlib.contextmanager
def llm_over_http() -> Iterator[str]:
    """Its address, until the block ends. It answers after `LLM_S`."""
    process = subprocess.Popen(
        [sys.executable, HERE / "upstream.py"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        measuring.ask(f"{address}/control?low={LLM_S}&high={LLM_S}")
        yield address
    finally:
        process.kill()
        process.wait()


async def main(llm: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (20)")
    parser.add_argument("--rows", type=int, default=200_000, help="of the log (200,000)")
    parser.add_argument("--rate", type=float, default=200, help="requests per second (200)")
    options = parser.parse_args()
    server = PrivatePostgres()
    server.start()
    try:
        served = {**SERVED, "ANTHROPIC_BASE_URL": llm}
        key, cookies, pages = await prepare(server, served, options.rows)
        rounds = []
        for number in range(1, options.rounds + 1):
            rounds.append(figures := await round_of(server, served, key, cookies, pages, options))
            for mode in MODES:
                shown = ", ".join(f"{name} {value:.0f}" for name, value in figures[mode].items())
                print(f"{number}. {mode:13} {shown}", flush=True)
        for mode in MODES[1:]:
            for name in ("p50", "p99", "our p99"):
                ratios = [figures[mode][name] / figures["nobody"][name] for figures in rounds]
                print(f"{mode:13} {name} × {statistics.median(ratios):.2f}")
    finally:
        server.stop()
        server.remove()


if __name__ == "__main__":
    with llm_over_http() as address:
        asyncio.run(main(address))
