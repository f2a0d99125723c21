"""The load test of the article, done right, and the pattern that it warns of."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.support import http
from tests.support.waiting import until

BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'staccato'
      AND state <> 'idle'
"""
OPEN = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'staccato'
"""


async def test_fifty_callers_wait_in_the_llm_and_no_connection_is_held(serve, llm, sql):
    llm.release.clear()
    async with serve() as service:
        callers = [asyncio.create_task(http.generate(service.port)) for _ in range(50)]
        await llm.until(lambda: llm.waiting == 50, "all fifty callers in the LLM at once")

        # The housekeeping of the start may have one as well, and ends while all callers wait.
        what = "no connection to be held while the model thinks"
        await until(lambda: sql.fetchval(f"SELECT ({BUSY}) = 0"), what)
        pool = await service.until_pool(lambda now: now["checked_out"] == 0, what)
        assert pool["llm_calls_in_flight"] == 50

        llm.release.set()
        answers = await asyncio.gather(*callers)
        assert [answer.status for answer in answers] == [200] * 50
        ids = {answer.json()["id"] for answer in answers}
        rows = await sql.fetch("SELECT id, status FROM generation_generationlog")
        assert {str(row["id"]) for row in rows} == ids
        assert {row["status"] for row in rows} == {"succeeded"}
        assert len(rows) == 50
        assert (await service.pool())["overflow"] == 0


async def test_a_thousand_requests_in_flight_need_a_handful_of_connections(serve, llm, sql):
    llm.release.clear()
    async with serve(DB_POOL_SIZE="5") as service:
        callers = [asyncio.create_task(http.generate(service.port)) for _ in range(1000)]
        await llm.until(lambda: llm.waiting == 1000, "1,000 callers in the LLM")
        assert await sql.fetchval(OPEN) <= 5
        await service.until_pool(lambda now: now["checked_out"] == 0, "no connection held")

        llm.release.set()
        answers = await asyncio.gather(*callers)
        assert {answer.status for answer in answers} == {200}
        assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 1000
        pool = await service.pool()
        assert pool["peak_open"] <= 5
        assert pool["overflow"] == 0


# --- the wrong pattern, for comparison --------------------------------------------------------

# SQLAlchemy's defaults are 5 + 10 connections and 30 s for an LLM of 2-8 s. Here all times are
# divided by ten. 150 callers on 15 connections need ten rounds, and the last round waits for
# nine latencies of 5 s in the mean, which is more than the 30 s.
SCALE = 10
CALLERS = 150


async def ask_llm() -> str:
    await asyncio.sleep(random.uniform(2, 8) / SCALE)
    return "an answer"


async def hold_across_the_call(engine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        await ask_llm()
        await session.execute(text("SELECT 1"))


async def release_before_the_call(engine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
    await ask_llm()
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))


async def run_callers(
    database_url: str, pattern, timeout_s: float = 30 / SCALE
) -> list[BaseException | None]:
    engine = create_async_engine(
        database_url.replace("postgresql:", "postgresql+asyncpg:"), pool_timeout=timeout_s
    )
    try:
        # Connections that are open already: the pattern is tried, not asyncpg's connecting.
        links = [await engine.connect() for _ in range(15)]
        for link in links:
            await link.close()
        return await asyncio.gather(
            *(pattern(engine) for _ in range(CALLERS)), return_exceptions=True
        )
    finally:
        await engine.dispose()


async def test_a_session_held_across_the_call_exhausts_the_default_pool(database_url):
    outcomes = await run_callers(database_url, hold_across_the_call)
    failures = [outcome for outcome in outcomes if outcome is not None]
    assert failures, "the wrong pattern got through: this test no longer shows the problem"
    assert all(isinstance(failure, exc.TimeoutError) for failure in failures)
    with pytest.raises(exc.TimeoutError, match="QueuePool limit of size 5 overflow 10 reached"):
        raise failures[0]


async def test_a_session_released_before_the_call_does_not_exhaust_the_same_pool(database_url):
    # A slow machine is no reason to fail, so it has the time that is not scaled.
    outcomes = await run_callers(database_url, release_before_the_call, timeout_s=30)
    assert outcomes == [None] * CALLERS
