"""An effect is there exactly when its log row is, whatever dies: processes that are killed, a
database that is away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.durability.support import looking, until_stored
from tests.support.waiting import HANG_S

ROOT = Path(__file__).parents[2]
# Prints each answer's id once it is given; goes on until it is killed.
ASKS = """
import asyncio
from tests.python_api.host import generate
from django.contrib.auth.models import Group
from generation import FromGeneration, Insert

async def ask():
    while True:
        made = Insert(Group, {"name": FromGeneration("id")})
        print((await generate(None, prompt="x", effects=[made])).id, flush=True)

async def ask_all():
    await asyncio.gather(*(ask() for _ in range(10)))

asyncio.run(ask_all())
"""
REPLAYS = """
import sys
from tests.python_api.host import generate_sync
generate_sync(None, prompt="x")
for _line in sys.stdin:  # until it is closed
    pass
"""


async def run(postgres, journal_dir, code: str):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, limit=2**20,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "DATABASE_URL": postgres.url,
            "JOURNAL_DIR": str(journal_dir),
            "WRITE_TIMEOUT": "0.3",
            "PYTHONPATH": str(ROOT),
        },
    )  # fmt: skip


async def ids(process, count: int) -> set[str]:
    async with asyncio.timeout(HANG_S):
        return {(await process.stdout.readline()).decode().strip() for _ in range(count)}


async def kill(process) -> set[str]:
    """Returns what it had printed by then."""
    process.kill()
    rest, _ = await process.communicate()
    return {line for line in rest.decode().split("\n")[:-1] if line}


async def test_effects_wait_in_the_journal_of_a_killed_process_and_happen_with_their_rows(
    postgres, journal_dir
):
    asking = await run(postgres, journal_dir, ASKS)
    answered = await ids(asking, 30)  # with the database
    postgres.stop_at_once()
    answered |= await ids(asking, 30)  # without it
    answered |= await kill(asking)
    postgres.start()
    replaying = await run(postgres, journal_dir, REPLAYS)
    try:
        await until_stored(postgres, answered)
        async with looking(postgres) as sql:
            effects = {
                row["name"]
                for row in await sql.fetch("SELECT name FROM auth_group WHERE length(name) = 36")
            }
            rows = {
                str(row["id"])
                for row in await sql.fetch(
                    "SELECT id FROM generation_generationlog WHERE provider = 'simulated'"
                )
            }
    finally:
        replaying.stdin.close()
        await replaying.wait()
    (without,) = rows - effects  # the replaying process's own
    assert effects == rows - {without}
    assert answered <= effects
    async with looking(postgres) as sql:
        await sql.execute("DELETE FROM auth_group WHERE length(name) = 36")
