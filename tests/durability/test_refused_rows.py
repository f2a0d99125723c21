"""A row that PostgreSQL refuses is set aside; its neighbours are stored."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from generation.journal.dead_letters import DeadLetters
from tests.durability.support import ids_of, looking, stored, until_used
from tests.support import http, service
from tests.support.locks import locked, until_blocked
from tests.support.rows import make_row
from tests.support.waiting import HANG_S


async def test_a_row_that_postgresql_refuses_is_set_aside_and_its_neighbours_are_stored(
    serve, llm, postgres, journal_dir
):
    url, environment = postgres.url, {"STACCATO_JOURNAL_DIR": str(journal_dir)}
    async with looking(postgres) as sql:
        await sql.execute(
            "ALTER TABLE generation_generationlog ADD CONSTRAINT odd CHECK (request_id <> 'odd')"
        )
        try:
            async with serve() as running:
                names = ["odd" if number == 3 else f"r{number}" for number in range(8)]
                answers = await asyncio.gather(
                    *(
                        http.generate(
                            running.port,
                            headers=[("X-Request-ID", name), ("Idempotency-Key", name)],
                        )
                        for name in names
                    )
                )
                ids = ids_of(answers)
                odd = answers[3].json()["id"]
                assert await stored(postgres) == ids - {odd}
                assert (await running.pool())["journal"]["rows_refused"] == 1
                assert odd in service.manage(url, "staccato_journal", "list", **environment)
                assert "23514" in service.manage(
                    url, "staccato_journal", "show", odd, **environment
                )
        finally:
            await sql.execute("ALTER TABLE generation_generationlog DROP CONSTRAINT odd")
    assert "1 " in service.manage(url, "staccato_journal", "replay", odd, **environment)
    assert odd in await stored(postgres)
    assert odd not in service.manage(url, "staccato_journal", "list", **environment)
    async with looking(postgres) as sql:  # with all that a row entails
        await until_used(sql, len(names))
        answer = "SELECT log_id::text FROM generation_idempotencykey WHERE key = 'odd'"
        assert await sql.fetchval(answer) == odd


async def test_a_refused_row_that_cant_be_set_aside_stays_in_memory_until_it_can(
    runtime, tmp_path, monkeypatch
):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime.log, "_dead_letters", DeadLetters(tmp_path, "db"))
    with monkeypatch.context() as full_disk:
        full_disk.setattr(runtime.log._dead_letters, "add", fail)
        await runtime.log.write(make_row("bad", latency_ms="soon"))
        for _ in range(2):
            await runtime.log._spool.replay(runtime.log._hand_over)
            assert runtime.log.snapshot().rows_in_memory_only == 1
    await runtime.log._spool.replay(runtime.log._hand_over)
    now = runtime.log.snapshot()
    assert (now.rows_in_memory_only, now.rows_refused) == (0, 1)


async def test_a_bug_of_ours_costs_a_row_its_place_and_not_its_neighbours(runtime, sql):
    """What no translator knows: the row is set aside, where an operator finds it."""
    rows = [make_row("good"), make_row("bad", latency_ms="soon"), make_row("better")]
    await asyncio.gather(*(runtime.log.write(row) for row in rows))
    found = await sql.fetch("SELECT result FROM generation_generationbody ORDER BY result")
    assert [row["result"] for row in found] == ["better", "good"]
    assert runtime.log.snapshot().rows_refused == 1


async def test_an_operators_replay_that_waits_for_the_database_makes_no_answer_wait(
    postgres, journal_dir, monkeypatch
):
    async with looking(postgres) as sql:
        database = f"{uuid4()}-postgres"
        refused = DeadLetters(journal_dir, database)
        refused.add(make_row("fixed"), "why")
        monkeypatch.setenv("STACCATO_JOURNAL_DIR", str(journal_dir))
        async with locked(postgres.url, "generation_generationlog"):
            replay = asyncio.create_task(
                asyncio.to_thread(
                    service.manage, postgres.url, "staccato_journal", "replay", "--all"
                )
            )
            await until_blocked(sql, "WITH rows AS")
            async with asyncio.timeout(HANG_S):
                await asyncio.to_thread(refused.add, make_row("meanwhile"), "why")
        assert "1 replayed" in await replay
        assert [entry.keyed.row.result for entry in refused.read()] == ["meanwhile"]
