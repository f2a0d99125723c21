"""Kill, stop and freeze for as long as you like, and count what was answered but not stored.

    python benchmarks/soak.py --kills 20 --restarts 10 --freezes 3

Starts a PostgreSQL, a fake LLM and the service, keeps callers busy all the while, and prints one
line for each kind of fault. Everything is on the loopback interface and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import http, service
from tests.support.dialects import AnthropicDialect
from tests.support.postgres import PrivatePostgres
from tests.support.provider import Provider, says

CALLERS = 100


class Soak:
    def __init__(self, postgres: PrivatePostgres, llm: Provider, journal: str) -> None:
        self.postgres = postgres
        self.answered: set[str] = set()
        self.statuses: dict[int, int] = {}
        self.running: service.Service | None = None
        self.env = {
            "LLM_PROVIDER": "anthropic",
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": llm.url,
            "STACCATO_JOURNAL_DIR": journal,
            "DB_POOL_TIMEOUT": "5",
        }

    async def call_for_ever(self) -> None:
        while True:
            running = self.running
            if running is None:
                await asyncio.sleep(0.05)
                continue
            try:
                answer = await http.generate(running.port)
                told = answer.json()
            except (OSError, ValueError):  # refused, or cut off by a kill
                await asyncio.sleep(0.01)
                continue
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            if answer.status == 200:
                self.answered.add(told["id"])
            else:
                await asyncio.sleep(0.05)

    async def more_answers(self, count: int) -> None:
        goal = len(self.answered) + count
        async with asyncio.timeout(120):
            while len(self.answered) < goal:
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def serving(self):
        async with service.running(self.postgres.url, **self.env) as running:
            self.running = running
            try:
                yield running
            finally:
                self.running = None

    async def kill_the_service(self, *, stop_postgres: bool) -> None:
        async with self.serving() as running:
            await self.more_answers(300)
            if stop_postgres:
                self.postgres.stop_at_once()
            running.process.kill()
            await running.ended()
        if stop_postgres:
            self.postgres.start()

    async def restart_postgres(self) -> float:
        """Seconds from ready to the first answer."""
        before = len(self.answered)
        self.postgres.stop_at_once()
        await asyncio.sleep(0.5)
        self.postgres.start()
        began = time.monotonic()
        after = len(self.answered)
        while len(self.answered) == max(before, after):
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def missing_and_doubled(self) -> tuple[int, int]:
        link = await asyncpg.connect(self.postgres.url)
        try:
            deadline = time.monotonic() + 30
            while True:
                rows = await link.fetch("SELECT id FROM generation_generationlog")
                found = {str(row["id"]) for row in rows}
                if self.answered <= found or time.monotonic() > deadline:
                    return len(self.answered - found), len(rows) - len(found)
                await asyncio.sleep(0.2)
        finally:
            await link.close()

    async def report(self, what: str, extra: str = "") -> None:
        missing, doubled = await self.missing_and_doubled()
        print(
            f"{what}: answered {len(self.answered)}, missing {missing}, duplicated {doubled},"
            f" statuses {dict(sorted(self.statuses.items()))} {extra}",
            flush=True,
        )


async def soak(postgres: PrivatePostgres, journal: str, options: argparse.Namespace) -> None:
    async with Provider(says(200, AnthropicDialect().answer()), keep=False).serve() as llm:
        work = Soak(postgres, llm, journal)
        callers = [asyncio.create_task(work.call_for_ever()) for _ in range(CALLERS)]
        for number in range(options.kills):
            await work.kill_the_service(stop_postgres=number % 2 == 1)
        async with work.serving() as running:
            await work.report(f"{options.kills} kills, every second one with PostgreSQL stopped")
            times = [await work.restart_postgres() for _ in range(options.restarts)]
            if times:
                slowest = f"first answer after ready: {max(times):.2f} s at most"
                await work.report(f"{options.restarts} restarts of PostgreSQL", slowest)
            for _ in range(options.freezes):
                await work.more_answers(200)
                postgres.freeze()
                await asyncio.sleep(10)
                postgres.thaw()
                await work.more_answers(200)
            if options.freezes:
                await work.report(f"{options.freezes} freezes of 10 s")
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            print("the pool at the end:", await running.pool())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--freezes", type=int, default=3)
    options = parser.parse_args()
    postgres, journal = PrivatePostgres(), tempfile.mkdtemp(prefix="staccato-soak-")
    try:
        postgres.start()
        service.manage(postgres.url, "migrate", "--verbosity", "0")
        service.manage(postgres.url, "seed_demo")
        asyncio.run(soak(postgres, journal, options))
    finally:
        postgres.remove()
        shutil.rmtree(journal, ignore_errors=True)


if __name__ == "__main__":
    main()
