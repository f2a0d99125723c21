"""Millions of log rows in a PostgreSQL of their own, made by SQL: for benchmarks/operators.py.

Eight weeks of partitions up to now. Users and keys are skewed; one model has 60 % of the rows, one
has 1 in 100,000, and one ended four weeks ago. Rows of the last days have texts.
"""

# ruff: noqa: E501  # SQL with a line for each column

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import asyncpg

from generation.partitions import ddl
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY, WEEK, intervals
from project.embedded_postgres.account import Account
from tests.support import ports, postgres, service

WEEKS = 8
USERS = 2_000
KEYS = 300
# Rows are made in parts, so that what a statement sorts and joins stays in memory.
PART = 500_000
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": 60,
    "shared_buffers": "1GB",
    "max_wal_size": "2GB",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "fsync": "off",  # a machine that fails costs no more than a new fill
    "full_page_writes": "off",
}


class Server:
    """PostgreSQL with its data in a folder. It outlives this process, until `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._account = Account()

    @property
    def url(self) -> str:
        port = (self.folder / "PORT").read_text().strip()
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Make it if there is none, and start it unless it runs."""
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        data = self.folder / "data"
        binaries = self._binaries()
        if not data.exists():
            shutil.copytree(postgres._data(binaries), data)  # noqa: SLF001  # as the tests make theirs
            for path in [data, *data.rglob("*")]:
                self._account.own(path)
            data.chmod(0o700)
        if not (self.folder / "PORT").exists():
            (self.folder / "PORT").write_text(f"{ports.free_port()}\n")
        if self._pid() is None:
            settings = {"port": (self.folder / "PORT").read_text().strip(), **SETTINGS}
            settings["unix_socket_directories"] = ""
            with (self.folder / "log").open("ab") as log:
                subprocess.Popen(
                    [binaries / "postgres", "-D", data,
                     *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))],
                    env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, **self._account.credentials,
                )  # fmt: skip
            self._until_ready(data)

    def _binaries(self) -> Path:
        """Returns a folder that PostgreSQL's account may reach, also after this process."""
        found = postgres.default_binaries()
        if self._account.can_run(found / "postgres"):
            return found
        copy = self.folder / "lib" / "install" / "bin"
        if not copy.exists():
            made = postgres._runnable(found)  # noqa: SLF001  # as the tests make theirs
            shutil.copytree(made.parents[2], self.folder, symlinks=True, dirs_exist_ok=True)
        return copy

    @staticmethod
    def _until_ready(data: Path) -> None:
        status = data / "postmaster.pid"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = status.read_text().splitlines() if status.exists() else []
            if lines and lines[-1].strip() == "ready":
                return
            time.sleep(0.05)
        raise SystemExit("PostgreSQL did not start: see its log")

    def stop(self) -> None:
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGINT)

    def _pid(self) -> int | None:
        status = self.folder / "data" / "postmaster.pid"
        try:
            pid = int(status.read_text().splitlines()[0])
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid


# The ids are UUIDv7: the milliseconds, then digits of a hash. `r` are a row's own random numbers.
ROWS = """
WITH numbered AS MATERIALIZED (
    SELECT n, $1::timestamptz + n * $2::interval AS at, md5(n::text) AS h,
        random() AS r1, random() AS r2, random() AS r3, random() AS r4, random() AS r5,
        random() AS r6
    FROM generate_series($3::int, $4::int) AS n
), chosen AS (
    SELECT *, 1 + floor({users} * r1 ^ 3)::int AS user_id,
        CASE WHEN n % 100000 = 77 THEN 7
             WHEN at < $5 AND r2 > .93 THEN 6
             WHEN r2 < .60 THEN 1 WHEN r2 < .78 THEN 2 WHEN r2 < .88 THEN 3
             WHEN r2 < .95 THEN 4 ELSE 5 END AS m,
        CASE WHEN r3 < .96 THEN 'succeeded' WHEN r3 < .98 THEN 'failed'
             WHEN r3 < .99 THEN 'timed_out' ELSE 'cancelled' END AS status,
        (300 + 1200 * exp(1.1 * sqrt(-2 * ln(1 - r4)) * cos(2 * pi() * r5)))::int AS ms,
        20 + (3000 * r6 ^ 4)::int AS tokens_in, 10 + (900 * r5 ^ 2)::int AS tokens_out
    FROM numbered
), named AS (
    SELECT chosen.*,
        (ARRAY['anthropic','openai','gemini','anthropic','openai','openai','gemini'])[m] AS provider,
        (ARRAY['claude-sonnet-5-5','gpt-6-luna','gemini-4-flash','claude-haiku-5','gpt-6-mini',
               'gpt-5-retired','gemini-4-rare'])[m] AS model,
        (ARRAY[9, 4, 1, 2, 1, 5, 20])[m] AS price,
        CASE status WHEN 'failed' THEN
            CASE WHEN r6 < .5 THEN 'llm-rate-limited' WHEN r6 < .8 THEN 'llm-refused'
                 WHEN r6 < .999 THEN 'llm-overloaded' ELSE 'llm-bad-reply' END
             WHEN 'timed_out' THEN 'llm-timed-out' WHEN 'cancelled' THEN 'client-left'
             ELSE '' END AS error_type,
        (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint + ms), 12, '0')
            || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid AS id
    FROM chosen
)
INSERT INTO generation_generationlog (
    id, user_id, api_key_id, provider, model, input_tokens, output_tokens, total_tokens, max_tokens,
    status, error_type, stop_reason, attempts, cost_usd, latency_ms, llm_latency_ms, request_id,
    trace_id, metadata, is_streamed, first_token_ms, created_at, stored_at)
SELECT id, user_id, 1 + floor({keys} * r1 * r6)::int, provider, model,
    CASE WHEN status <> 'failed' THEN tokens_in END,
    CASE WHEN status <> 'failed' THEN tokens_out END,
    CASE WHEN status <> 'failed' THEN tokens_in + tokens_out END, 1024,
    status, error_type,
    CASE WHEN status <> 'succeeded' THEN '' WHEN r6 < .94 THEN 'end_turn' WHEN r6 < .98 THEN 'max_tokens'
         WHEN r6 < .9999 THEN 'tool_use' ELSE 'refusal' END,
    CASE WHEN r5 < .97 THEN jsonb_build_array(
             jsonb_build_object('provider', provider, 'model', model, 'status', 200, 'error', '', 'ms', ms - 5))
         WHEN r5 < .995 THEN jsonb_build_array(
             jsonb_build_object('provider', provider, 'model', model, 'status', 429, 'error', 'llm-rate-limited', 'ms', 90),
             jsonb_build_object('provider', provider, 'model', model, 'status', 200, 'error', '', 'ms', ms - 95))
         ELSE jsonb_build_array(
             jsonb_build_object('provider', 'azure', 'model', 'gpt-6-mini', 'status', 529, 'error', 'llm-overloaded', 'ms', 120),
             jsonb_build_object('provider', provider, 'model', model, 'status', 200, 'error', '', 'ms', ms - 125))
    END,
    CASE WHEN status <> 'failed' AND r4 < .99 THEN (tokens_in + 5 * tokens_out) * price / 1e6 END,
    ms, ms - 5, h::uuid::text, '', '{{}}', r4 < .3, CASE WHEN r4 < .3 THEN ms / 4 END,
    at, at + ms * interval '1 ms'
FROM named ORDER BY id
"""
TEXTS = """
INSERT INTO generation_generationbody (id, excerpt, prompt, system, result, result_cleaned, error, raw_reply)
SELECT id, '', 'Sum this up: ' || a.words || CASE WHEN right(id::text, 4) = 'beef' THEN ' rutabaga ' ELSE ' ' END || b.words,
    '', CASE WHEN status = 'succeeded' THEN c.words ELSE '' END, false,
    CASE WHEN error_type <> '' THEN 'the provider said: ' || error_type ELSE '' END, ''
FROM generation_generationlog
JOIN paragraphs a ON a.n = abs(hashtext(request_id)) % 4000
JOIN paragraphs b ON b.n = abs(hashtext(request_id || 'b')) % 4000
JOIN paragraphs c ON c.n = abs(hashtext(request_id || 'c')) % 4000
WHERE id >= $1 AND id < $2 ORDER BY id
"""


async def fill(server: Server, rows: int, body_days: int) -> None:
    service.manage(server.url, "migrate", "-v0")
    link = await asyncpg.connect(server.url, timeout=30)
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since = until - timedelta(weeks=WEEKS)
    for table, every, start in (
        ("generation_generationlog", WEEK, since),
        ("generation_generationbody", DAY, until - timedelta(days=body_days)),
    ):
        parent = Parent(table, every)
        for interval in intervals(start, until, every):
            name = parent.partition(interval)
            if await link.fetchval("SELECT to_regclass($1)", name) is None:
                await link.execute("; ".join(ddl.make(parent, interval)))
    await people(link)
    for first in range(0, rows, PART):
        began = time.monotonic()
        await link.execute(
            ROWS.format(users=USERS, keys=KEYS),
            since, (until - since) / rows, first, min(first + PART, rows) - 1, until - timedelta(weeks=4),
            timeout=900,
        )  # fmt: skip
        print(f"{first + PART:,} rows, {time.monotonic() - began:.0f} s", flush=True)
    await link.execute(
        "CREATE TEMPORARY TABLE paragraphs AS SELECT n, string_agg(w, ' ') AS words FROM"
        " (SELECT n, 'word' || floor(20000 * random() ^ 3)::int AS w FROM generate_series(0, 3999) AS n,"
        " generate_series(1, 90)) AS drawn GROUP BY n"
    )
    for day in intervals(until - timedelta(days=body_days), until, DAY):
        await link.execute(TEXTS, day.first_id, day.end_id, timeout=900)
        print(f"texts of {day.start}", flush=True)
    await link.execute("VACUUM (ANALYZE)", timeout=900)
    print(await link.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))"))
    await link.close()


async def people(link: asyncpg.Connection) -> None:
    await link.execute(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_staff,"
        " is_active, is_superuser, date_joined)"
        " SELECT n, 'user' || n, '', '', '', '', n = 1, true, n = 1, now()"
        f" FROM generate_series(1, {USERS}) AS n ON CONFLICT DO NOTHING"
    )
    await link.execute(
        "INSERT INTO generation_profile (user_id, prompt_template, system, provider, model)"
        f" SELECT n, 'Sum this up: $input', '', '', '' FROM generate_series(1, {USERS}) AS n"
        " ON CONFLICT DO NOTHING"
    )
    await link.execute(
        "INSERT INTO generation_apikey (id, name, prefix, digest, scope, allowed_models, created_at)"
        " SELECT n, 'key' || n, 'key' || n, '', 'all', '', now()"
        f" FROM generate_series(1, {KEYS}) AS n ON CONFLICT DO NOTHING"
    )
