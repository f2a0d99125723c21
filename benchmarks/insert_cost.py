"""What a log row costs to insert, in this checkout beside another one.

    git worktree add /tmp/before COMMIT
    python benchmarks/insert_cost.py /tmp/before [--binaries /usr/lib/postgresql/15/bin]

One PostgreSQL has a database for each checkout, migrated by it. A writer in each inserts rows with
the checkout's own code; the two take turns, so that what else the machine does meets both. The
figures are CPU time of the server's process and of the writer, and WAL, for each row: medians over
the turns, with the quartiles, and the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TEXT_CHARS = 1200  # of the prompt and of the result
WARM_UP = 10  # statements
FIGURES = {
    "pg_us": "CPU of PostgreSQL (µs)",
    "writer_us": "CPU of the writer (µs)",
    "wal_bytes": "WAL (bytes)",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, metavar="CHECKOUT", help="what to compare with")
    parser.add_argument("--binaries", type=Path, help="of another PostgreSQL, e.g. one with lz4")
    parser.add_argument("--batch", type=int, nargs="+", default=[50, 500], help="rows a statement")
    parser.add_argument("--rows", type=int, default=4000, help="rows that a writer's turn inserts")
    parser.add_argument("--turns", type=int, default=30, help="of each writer")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from tests.support.postgres import PrivatePostgres

    server = PrivatePostgres(
        options.binaries,
        fsync="off",
        shared_buffers="512MB",
        max_wal_size="8GB",
        checkpoint_timeout="1d",
        autovacuum="off",
    )
    try:
        server.start()
        compare(server, options)
    finally:
        server.remove()


def compare(server, options: argparse.Namespace) -> None:
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as link:
        print(link.execute("SELECT version()").fetchone()[0])
        for name in ("before", "after"):
            link.execute(f"CREATE DATABASE {name}")
    for batch in options.batch:
        writers = {
            name: Writer(checkout, server.url.replace("/postgres?", f"/{name}?"))
            for name, checkout in (("before", options.before), ("after", HERE))
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in writers}
        try:
            for turn in range(options.turns):
                for name in sorted(writers, reverse=turn % 2 == 0):
                    found[name].append(writers[name].insert(batch, options.rows // batch))
        finally:
            for writer in writers.values():
                writer.close()
        report(batch, **found)


def report(batch: int, before: list[dict[str, float]], after: list[dict[str, float]]) -> None:
    print(f"{batch} rows a statement, {len(before)} turns each; median (quartiles) for each row")
    for figure, title in FIGURES.items():
        sides = [[turn[figure] for turn in side] for side in (before, after)]
        shown = []
        for values in sides:
            low, middle, high = statistics.quantiles(values, n=4)
            shown.append(f"{middle:8.1f} ({low:.1f} to {high:.1f})")
        ratio = statistics.median(new / old for old, new in zip(*sides, strict=True))
        medians = statistics.median(sides[1]) / statistics.median(sides[0])
        print(f"  {title:24} {' → '.join(shown)}   medians {medians:.3f}, paired {ratio:.3f}")


class Writer:
    """A process that inserts rows with a checkout's code."""

    def __init__(self, checkout: Path, url: str) -> None:
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "DEBUG": "1",
            "LLM_PROVIDER": "simulated",
            "DB_POOL_SIZE": "1",
            "DB_MAX_OVERFLOW": "0",
            "PYTHONPATH": str(checkout),
        }
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
        subprocess.run(migrate, cwd=checkout, env=environment, check=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import asyncio, insert_cost; asyncio.run(insert_cost.write())"],
            cwd=checkout,
            env={**environment, "PYTHONPATH": f"{checkout}:{Path(__file__).parent}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def insert(self, batch: int, statements: int) -> dict[str, float]:
        """Returns the figures for each row."""
        print(batch, statements, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


async def write() -> None:
    """Take turns as they are asked for on standard input."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django

    django.setup()
    from django.db import connections
    from sqlalchemy import text

    from generation import conf
    from generation.database.engine import Database
    from generation.store.logs import Logs

    settings = conf.load()
    async with Database.open(settings, connections.settings["default"], strict=False) as database:
        kept = {"kept": timedelta(days=400), "bodies_kept": timedelta(days=30)}
        logs = Logs(database, NoUsage(), **kept)
        ((backend,),) = await database.run(text("SELECT pg_backend_pid()"))
        wal = text("SELECT pg_current_wal_insert_lsn() - '0/0'")
        make = RowMaker()
        for _ in range(WARM_UP):
            await insert(logs, make.rows(50))
        while line := sys.stdin.readline():
            batch, statements = map(int, line.split())
            batches = [make.rows(batch) for _ in range(statements)]
            gc.collect()
            gc.disable()
            ((start,),) = await database.run(wal)
            cpu, own = cpu_ns(backend), time.process_time_ns()
            for rows in batches:
                await insert(logs, rows)
            own, cpu = time.process_time_ns() - own, cpu_ns(backend) - cpu
            ((end,),) = await database.run(wal)
            gc.enable()
            rows = batch * statements
            figures = {
                "pg_us": cpu / rows / 1000,
                "writer_us": own / rows / 1000,
                "wal_bytes": float(end - start) / rows,
            }
            print(json.dumps(figures), flush=True)


class NoUsage:
    """In place of the usage log, which is written apart."""

    def record(self, row) -> None: ...


async def insert(logs, rows: list) -> None:
    """As one statement, whatever the batcher would make of them."""
    await logs._insert_batch(rows)  # noqa: SLF001  # there is no public way past the batcher


def cpu_ns(pid: int) -> int:
    """User and system time of a process, finer than the ticks of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


class RowMaker:
    """Rows of successes, with texts that compress like prose."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = [
            "".join(self._random.choices(letters, k=self._random.randint(2, 9)))
            for _ in range(5000)
        ]

    def rows(self, count: int) -> list:
        return [self._row() for _ in range(count)]

    def _text(self) -> str:
        return " ".join(self._random.choices(self._words, k=TEXT_CHARS // 4))[:TEXT_CHARS]

    def _row(self):
        from generation.records import Attempt, KeyedRow, LogRow
        from generation.uuid7 import uuid7

        row = LogRow(
            id=uuid7(),
            user_id=self._random.randint(1, 1000),
            prompt=self._text(),
            system="",
            provider="anthropic",
            model="claude-sonnet-5-5",
            status="succeeded",
            attempts=(Attempt("anthropic", "claude-sonnet-5-5", 200, "", 3000),),
            raw_reply="",
            latency_ms=3004,
            llm_latency_ms=3000,
            request_id=f"{self._random.getrandbits(128):032x}",
            created_at=datetime.now(UTC),
            result=self._text(),
            input_tokens=300,
            output_tokens=300,
            total_tokens=600,
            stop_reason="end_turn",
            cost_usd=Decimal("0.001230000"),
        )
        return KeyedRow(row)


if __name__ == "__main__":
    main()
