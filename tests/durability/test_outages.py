"""The database goes, freezes, restarts or turns read-only under a running service."""

from __future__ import annotations

import asyncio
import time

from tests.durability.support import (
    FIVE_MINUTES,
    answered_without_a_database,
    demoted,
    ids_of,
    in_the_llm,
    looking,
    stored,
    until_answered,
    until_ready,
    until_stored,
    until_used,
)
from tests.support import http
from tests.support.waiting import HANG_S, until

READ_ONLY = "the database is read-only: perhaps another server is the primary now"


async def test_answers_arrive_though_the_database_is_gone_and_are_stored_when_it_is_back(
    serve, llm, postgres
):
    async with serve() as running:
        ids = await answered_without_a_database(running, llm, postgres, 50)
        assert (await running.pool())["journal"]["rows"] == 50

        postgres.start()
        await until_stored(postgres, ids)
        await running.until_pool(lambda now: now["journal"]["rows"] == 0, "an empty journal")
        async with looking(postgres) as sql:
            assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 50
            await until_used(sql, 50)


async def test_a_frozen_database_delays_answers_by_the_write_timeout_and_is_then_503(
    serve, llm, postgres
):
    async with serve(DB_COMMAND_TIMEOUT=FIVE_MINUTES, DB_POOL_TIMEOUT="2") as running:
        callers = await in_the_llm(running, llm, 50)
        postgres.freeze()
        llm.release.set()
        async with asyncio.timeout(HANG_S):
            ids = ids_of(await asyncio.gather(*callers))
        postgres.thaw()
        await until_stored(postgres, ids)
        # The flush that was stuck and the journal both had the rows.
        async with looking(postgres) as sql:
            assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 50
            await until_used(sql, 50)

        assert (await http.generate(running.port)).status == 200
        calls = llm.calls
        postgres.freeze()
        async with asyncio.timeout(HANG_S):  # the pool's timeout is two seconds
            answers = await asyncio.gather(*(http.generate(running.port) for _ in range(20)))
        assert {answer.status for answer in answers} == {503}
        assert llm.calls == calls
        postgres.thaw()
        await until_answered(running)


async def test_without_a_database_nothing_is_spent_and_after_a_restart_nothing_is_a_500(
    serve, llm, postgres
):
    async with serve(DB_POOL_TIMEOUT=FIVE_MINUTES) as running:
        assert (await http.generate(running.port)).status == 200
        calls = llm.calls
        postgres.stop_at_once()
        async with asyncio.timeout(HANG_S):
            answers = await asyncio.gather(*(http.generate(running.port) for _ in range(20)))
        assert {answer.status for answer in answers} == {503}
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        ready = await http.request(running.port, "GET", "/readyz")
        assert ready.status == 503
        assert llm.calls == calls

        postgres.start()
        await until_answered(running)
        statuses: set[int] = set()
        stop = asyncio.Event()

        async def call_all_the_time():
            while not stop.is_set():
                statuses.add((await http.generate(running.port)).status)
                await asyncio.sleep(0.01)

        callers = [asyncio.create_task(call_all_the_time()) for _ in range(5)]
        for _ in range(2):
            postgres.stop_at_once()
            postgres.start()
            await until_answered(running)
        stop.set()
        await asyncio.gather(*callers)
        assert statuses <= {200, 503}, statuses


async def test_a_key_whose_row_waits_in_the_journal_is_not_given_to_another(
    serve, llm, postgres, journal_dir
):
    """While an index is built, say, nobody can insert, and that may outlast the lease."""
    headers = [("Idempotency-Key", "k")]
    expire = "UPDATE generation_idempotencykey SET leased_until = now() - interval '1 s'"
    renewed = "SELECT count(*) FROM generation_idempotencykey WHERE leased_until > now()"
    short = {"DB_COMMAND_TIMEOUT": "3"}  # the lease is renewed after the insertion
    async with serve(**short) as one, serve(**short) as two, looking(postgres) as sql:
        async with looking(postgres) as builder, builder.transaction():
            await builder.execute("LOCK TABLE generation_generationlog IN SHARE MODE")
            first = await http.generate(one.port, headers=headers)
            assert first.status == 200
            await sql.execute(expire)
            await until(lambda: sql.fetchval(renewed), "the lease is renewed")
            for process in (one, two):
                assert (await http.generate(process.port, headers=headers)).status == 409
        await until_stored(postgres, ids_of([first]))
        again = await http.generate(two.port, headers=headers)
        assert again.body == first.body
        assert llm.calls == 1


async def test_a_server_that_was_demoted_is_left_for_its_successor(serve, llm, postgres):
    async with serve() as running:
        async with demoted(postgres) as sql:
            ids = ids_of([await http.generate(running.port) for _ in range(3)])
            ready = await http.request(running.port, "GET", "/readyz")
            assert (ready.status, ready.json()["database"]) == (503, READ_ONLY)
            assert not await stored(postgres)

            # No write asks for a connection of its own: each second the pool opens its few.
            sessions = "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'"
            before, began = await sql.fetchval(sessions), time.monotonic()
            ids |= ids_of([await http.generate(running.port) for _ in range(200)])
            opened = await sql.fetchval(sessions) - before
            seconds = time.monotonic() - began
        assert opened < min(200, 12 * (1 + seconds)), f"{opened} connections in {seconds:.1f} s"
        await until_stored(postgres, ids)  # though the pool's connections were read-only for good
        await until_ready(running)


async def test_keys_that_were_answered_in_a_long_outage_are_paid_for_once(serve, llm, postgres):
    """One process lives on, another one dies; the leases end while the database is away."""
    keys = [[("Idempotency-Key", f"key-{number}")] for number in range(60)]
    async with serve() as living, serve() as dead:
        llm.release.clear()
        callers = [
            asyncio.create_task(http.generate((living, dead)[number % 2].port, headers=headers))
            for number, headers in enumerate(keys)
        ]
        await llm.until(lambda: llm.waiting == len(keys), "all callers in the LLM")
        async with looking(postgres) as sql:
            await sql.execute("UPDATE generation_idempotencykey SET leased_until = now()")
        postgres.stop_at_once()
        llm.release.set()
        answers = await asyncio.gather(*callers)
        ids_of(answers)
        dead.process.kill()
        await dead.ended()
        postgres.start()
        pending = dict(enumerate(keys))
        async with asyncio.timeout(HANG_S):
            while pending:
                order = list(pending)
                again = await asyncio.gather(
                    *(http.generate(living.port, headers=pending[number]) for number in order)
                )
                for number, answer in zip(order, again, strict=True):
                    assert answer.status in {200, 409, 503}
                    if answer.status == 200:
                        assert answer.json()["id"] == answers[number].json()["id"]
                        del pending[number]
        assert llm.calls == len(keys)


async def test_a_server_that_answers_and_stores_nothing_is_not_ready(serve, llm, postgres):
    """As while its disk is full."""
    full = "RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'"
    async with looking(postgres) as sql, serve() as running:
        await sql.execute(
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {full}; END$$;"
            "CREATE TRIGGER full_disk BEFORE INSERT ON generation_generationlog"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        try:
            answer = await http.generate(running.port)
            assert answer.status == 200, "it is in the journal"

            async def is_not_ready() -> bool:
                return (await http.request(running.port, "GET", "/readyz")).status == 503

            await until(is_not_ready, "it is not ready")
            ready = (await http.request(running.port, "GET", "/readyz")).json()
            assert ready["database"] == "ok"
            assert "takes no rows" in ready["journal"]
        finally:
            await sql.execute("DROP FUNCTION refuse CASCADE")
        await until_ready(running)
        await until_stored(postgres, {answer.json()["id"]})
