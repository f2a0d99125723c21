"""What these tests ask the database, the service and the LLM."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg

from tests.support import http
from tests.support.waiting import until

USED = "FROM generation_usagelog"
FIVE_MINUTES = "300"  # for a limit that must not be what ends a wait
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


async def until_stored(postgres, ids: set[str]) -> None:
    async def are_stored() -> bool:
        return ids <= await stored(postgres)

    await until(are_stored, f"{len(ids)} answered rows are stored")


async def until_used(sql, count: int) -> None:
    """So many usage records, written after the answers, and not one more."""
    await until(
        lambda: sql.fetchval(f"SELECT count(*) >= $1 {USED}", count), f"{count} usage records"
    )
    assert await sql.fetchval(f"SELECT count(*) {USED}") == count


async def until_ready(running) -> None:
    async def is_ready() -> bool:
        return (await http.request(running.port, "GET", "/readyz")).status == 200

    await until(is_ready, "it is ready")


async def until_answered(running) -> None:
    async def is_answered() -> bool:
        return (await http.generate(running.port)).status == 200

    await until(is_answered, "an answer")


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
