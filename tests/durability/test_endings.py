"""Processes are killed or told to end, and clients leave, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools

from tests.durability.support import (
    FIVE_MINUTES,
    UNTIDY,
    ids_of,
    in_the_llm,
    looking,
    stored,
    until_stored,
)
from tests.support import http
from tests.support.http import Wire
from tests.support.waiting import until

GENERATE = "/api/v1/generate/1"


def have(answered: set[str], count: int) -> bool:
    return len(answered) >= count


async def test_what_was_answered_before_a_kill_is_stored(serve, llm, postgres):
    answered: set[str] = set()
    for database_goes_too in (False, True):
        async with serve() as running:

            async def caller():
                with contextlib.suppress(OSError):
                    while True:
                        answer = await http.generate(running.port)
                        if answer.status == 200:
                            answered.add(answer.json()["id"])

            callers = [asyncio.create_task(caller()) for _ in range(20)]
            goal = len(answered) + 100
            await until(functools.partial(have, answered, goal), "a hundred answers")
            if database_goes_too:
                postgres.stop_at_once()
            running.process.kill()
            await running.ended()
            await asyncio.gather(*callers)
            if database_goes_too:
                postgres.start()
    async with serve():
        await until_stored(postgres, answered)


async def test_sigterm_with_hundreds_in_flight_answers_them_all(serve, llm, postgres):
    async with serve(
        LLM_TIMEOUT="60", DB_POOL_TIMEOUT="30", STACCATO_WRITE_TIMEOUT="10"
    ) as running:
        callers = await in_the_llm(running, llm, 300)
        running.terminate()
        llm.release.set()
        ids = ids_of(await asyncio.gather(*callers))
        assert await running.ended() in {0, 143, -15}
        assert len(ids) == 300
        assert await stored(postgres) == ids
        for word in UNTIDY:
            assert word not in running.log, running.log


async def test_the_drain_limit_is_kept_without_the_servers_help(serve, llm, postgres):
    async with serve(STACCATO_DRAIN_TIMEOUT="0.5", LLM_TIMEOUT=FIVE_MINUTES) as running:
        callers = await in_the_llm(running, llm, 20)
        running.terminate()
        assert await running.ended() in {0, 143, -15}
        assert {answer.status for answer in await asyncio.gather(*callers)} == {503}
        async with looking(postgres) as sql:
            rows = await sql.fetch("SELECT status FROM generation_generationlog")
        assert [row["status"] for row in rows] == ["cancelled"] * 20


async def test_hundreds_of_clients_that_reset_leave_a_row_each_and_no_connection(
    serve, llm, postgres
):
    async with serve(
        LLM_TIMEOUT="60", DB_POOL_TIMEOUT="30", STACCATO_WRITE_TIMEOUT="10"
    ) as running:
        llm.release.clear()
        exchanges = await asyncio.gather(
            *(Wire.begin(running.port, "POST", GENERATE) for _ in range(300))
        )
        await llm.until(lambda: llm.waiting == 300, "all in the LLM")
        before = await running.pool()
        await asyncio.gather(*(exchange.leave() for exchange in exchanges))
        await llm.until(lambda: llm.hung_up == 300, "all upstream connections' end")
        after = await running.until_pool(
            lambda now: (
                now["requests_in_flight"] == now["checked_out"] == now["journal"]["rows"] == 0
            ),
            "the baseline",
        )
        assert after["peak_open"] - before["peak_open"] <= 4
        async with looking(postgres) as sql:
            rows = await sql.fetch(
                "SELECT status, count(*) FROM generation_generationlog GROUP BY 1"
            )
        assert {row["status"]: row["count"] for row in rows} == {"cancelled": 300}
