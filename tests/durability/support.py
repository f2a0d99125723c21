"""What these tests ask the database, the service and the LLM."""

from __future__ import annotations

import asyncio
import contextlib
import time

import asyncpg

from tests.support import http

SLACK_S = 4.0  # for a slow machine; the bounds themselves are in each test
# Words in the log of a process that left something behind.
UNTIDY = ("was never closed", "was destroyed", "never retrieved", "Traceback", "never awaited")


@contextlib.asynccontextmanager
async def looking(postgres):
    link = await asyncpg.connect(postgres.url)
    try:
        yield link
    finally:
        await link.close()


@contextlib.asynccontextmanager
async def demoted(postgres):
    """As after a failover: the old server lives on as a standby, and so do connections to it.

    Those that are opened in the block stay read-only after it. Gives one that is not.
    """
    async with looking(postgres) as sql:
        await sql.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        try:
            await sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            yield sql
        finally:
            await sql.execute("ALTER DATABASE postgres RESET default_transaction_read_only")


async def stored(postgres) -> set[str]:
    async with looking(postgres) as sql:
        return {
            str(row["id"])
            for row in await sql.fetch(
                "SELECT id FROM generation_generationlog WHERE status = 'succeeded'"
            )
        }


async def until_stored(postgres, ids: set[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ids <= (found := await stored(postgres)):
        assert time.monotonic() < deadline, f"{len(ids - found)} answered rows are not stored"
        await asyncio.sleep(0.1)


async def until_used(sql, count: int) -> None:
    """So many usage records, written after the answers, and not one more."""
    async with asyncio.timeout(60):
        while await sql.fetchval("SELECT count(*) FROM generation_usagelog") < count:
            await asyncio.sleep(0.05)
    assert await sql.fetchval("SELECT count(*) FROM generation_usagelog") == count


async def in_the_llm(running, llm, count: int) -> list[asyncio.Task]:
    llm.release.clear()
    callers = [asyncio.create_task(http.generate(running.port)) for _ in range(count)]
    await llm.until(lambda: llm.waiting == count, f"{count} callers in the LLM")
    return callers


async def answered_without_a_database(running, llm, postgres, count: int) -> set[str]:
    """The ids of answers that arrive after the database has gone under their LLM calls."""
    callers = await in_the_llm(running, llm, count)
    postgres.stop_at_once()
    llm.release.set()
    return ids_of(await asyncio.gather(*callers))


def ids_of(answers) -> set[str]:
    assert [answer.status for answer in answers] == [200] * len(answers)
    return {answer.json()["id"] for answer in answers}
