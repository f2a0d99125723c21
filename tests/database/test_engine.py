"""The pool's defaults and statistics, sessions, the guard, and the translation of errors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

import pytest
from django.db import connections
from sqlalchemy import exc, text

from generation import conf
from generation.database.engine import Database
from generation.database.sqlstate import is_lost
from generation.errors import ConnectionHeld, DatabaseUnavailable, RowRefused
from generation.telemetry import metrics
from tests.support.waiting import until


@pytest.fixture
def opened(committed):
    def open_with(*, strict=True, **values):
        return Database.open(conf.parse(values), connections.settings["default"], strict=strict)

    return open_with


async def test_the_recommended_pool_is_the_default(opened):
    async with opened() as database:
        pool = database.pool
        assert (pool.size(), pool._max_overflow, pool._timeout) == (10, 20, 10)
        assert (pool._recycle, pool._pre_ping, database.engine.echo) == (3600, True, False)
        assert database.engine.dialect.driver == "asyncpg"


async def test_a_snapshot_counts_open_and_checked_out_connections(opened):
    async with opened(DB_POOL_SIZE=1, DB_MAX_OVERFLOW=2) as database:
        fresh = database.pool.snapshot()
        assert (fresh.open, fresh.checked_out, fresh.overflow) == (0, 0, 0)
        async with database.engine.connect(), database.engine.connect():
            lent = database.pool.snapshot()
            assert (lent.open, lent.checked_out, lent.overflow) == (2, 2, 1)
        after = database.pool.snapshot()
        assert (after.open, after.checked_out, after.checked_in) == (1, 0, 1)
        assert (after.peak_open, after.peak_checked_out) == (2, 2)
        assert after.holds.count == after.waits.count == 2
        assert after.holds.max_ms >= after.holds.p50_ms > 0


async def test_a_connection_that_postgresql_ended_is_not_called_open(opened, sql):
    async with opened(DB_POOL_SIZE=3) as database:
        async with contextlib.AsyncExitStack() as lent:
            pids = [
                await (await lent.enter_async_context(database.engine.connect())).scalar(
                    text("SELECT pg_backend_pid()")
                )
                for _ in range(3)
            ]
        await sql.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
        await until(lambda: not database.pool.open, "the pool has noticed")
        assert database.pool.snapshot().checked_in == 0
        assert database.pool.checkedin() == 3  # entries, which are filled again when needed
        with pytest.raises(DatabaseUnavailable):
            await database.run(text("SELECT 1"))
        await database.run(text("SELECT 1"))
        assert database.pool.open == 1


async def test_what_has_left_the_pool_is_neither_counted_nor_kept(opened):
    async with opened() as database:
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            link = raw.driver_connection
            raw.detach()
            assert database.pool.open == 1
            link.terminate()
        del connection, raw, link
        gc.collect()
        assert len(database.pool._links) == database.pool.open == 0


async def test_an_exhausted_pool_is_503_within_its_timeout(opened, monkeypatch):
    async with opened(DB_POOL_SIZE=1, DB_MAX_OVERFLOW=0) as database:
        async with database.engine.connect():
            # By the setting, this connection would have had no more time than that to be made.
            monkeypatch.setattr(database.pool, "_timeout", 0.1)
            with pytest.raises(DatabaseUnavailable) as caught:
                await database.run(text("SELECT 1"))
        assert caught.value.status == 503
        assert caught.value.retry_after_header == "1"


# --- session() --------------------------------------------------------------------------------


async def test_a_session_rolls_back_on_error_and_returns_its_connection(opened):
    async with opened() as database:
        with pytest.raises(ZeroDivisionError):
            async with database.session() as session:
                await session.execute(
                    text("INSERT INTO generation_usagelog VALUES (1, 1, 1, now(), 1)")
                )
                raise ZeroDivisionError
        async with database.session() as session:
            rows = await session.scalar(text("SELECT count(*) FROM generation_usagelog"))
        assert rows == 0
        assert database.pool.checkedout() == 0


async def test_a_cancelled_session_returns_its_connection(opened):
    async with opened() as database:

        async def sleep_in_the_database():
            async with database.session() as session:
                await session.execute(text("SELECT pg_sleep(60)"))

        task = asyncio.create_task(sleep_in_the_database())
        await until(database.pool.checkedout, "a connection is in use")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert database.pool.checkedout() == 0


# --- the guard --------------------------------------------------------------------------------


async def test_holding_a_connection_into_the_llm_phase_raises(opened):
    async with opened() as database:
        database.track()
        async with database.session() as session:
            await session.execute(text("SELECT 1"))
            expected = pytest.raises(ConnectionHeld, match="leave the `async with`")
            with expected, database.no_connection_held():
                pass
        with database.no_connection_held():
            pass


async def test_in_production_a_held_connection_is_counted(opened):
    before = metrics.GUARD_VIOLATIONS._value.get()
    async with opened(strict=False) as database:
        database.track()
        async with database.engine.connect():
            with database.no_connection_held():
                pass
    assert metrics.GUARD_VIOLATIONS._value.get() == before + 1


async def test_a_child_tasks_connection_counts_as_the_requests(opened):
    async with opened() as database:
        database.track()
        borrowed, may_return = asyncio.Event(), asyncio.Event()

        async def child():
            async with database.engine.connect():
                borrowed.set()
                await may_return.wait()

        task = asyncio.create_task(child())
        await borrowed.wait()
        with pytest.raises(ConnectionHeld), database.no_connection_held():
            pass
        may_return.set()
        await task
        with database.no_connection_held():
            pass


async def test_another_requests_connection_is_no_concern_of_this_one(opened):
    async with opened() as database, database.engine.connect():

        async def request():
            database.track()
            with database.no_connection_held():
                return True

        assert await asyncio.create_task(request())


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT 1/0", RowRefused),
        ("SELECT 'x'::int", RowRefused),
        ("DO $$ BEGIN RAISE 'a trigger of yours says no'; END $$", RowRefused),
        ("SELECT * FROM no_such_table", DatabaseUnavailable),
        ("SELECT pg_terminate_backend(pg_backend_pid())", DatabaseUnavailable),
    ],
)
async def test_driver_errors_are_translated(opened, statement, error):
    async with opened() as database:
        with pytest.raises(error):
            await database.run(text(statement))


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", 2**70])
async def test_data_that_the_driver_refuses_is_the_rows_fault(opened, value):
    async with opened() as database:
        cast = "bigint" if isinstance(value, int) else "text"
        with pytest.raises(RowRefused):
            await database.run(text(f"SELECT CAST(:value AS {cast})"), {"value": value})


async def test_a_lost_connection_is_distinguished_from_a_failed_statement(opened):
    async with opened() as database:
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.run(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert is_lost(caught.value)
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.run(text("SELECT * FROM no_such_table"))
        assert not is_lost(caught.value)


async def test_a_slow_statement_ends_at_the_command_timeout(opened):
    async with opened(DB_COMMAND_TIMEOUT=1) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.run(text("SELECT pg_sleep(60)"))
        assert await database.run(text("SELECT 1")) == [(1,)]


async def test_a_column_that_a_migration_changes_is_read_and_written_all_the_same(opened, sql):
    await sql.execute("CREATE TABLE changing (id serial, value integer)")
    try:
        async with opened(DB_POOL_SIZE=3) as database:
            write = text("INSERT INTO changing (value) VALUES (1) RETURNING value")
            read = text("SELECT value FROM changing LIMIT 1")
            for kind, found in (("integer", 1), ("bigint", 1), ("text", "1"), ("varchar(9)", "1")):
                await sql.execute(f"ALTER TABLE changing ALTER value TYPE {kind}")
                for statement in (write, read):
                    rows = await asyncio.gather(*(database.run(statement) for _ in range(3)))
                    assert rows == [[(found,)]] * 3
        assert await sql.fetchval("SELECT count(*) FROM changing") == 12, "none was written twice"
    finally:
        await sql.execute("DROP TABLE changing")


async def test_a_bug_is_not_taken_for_a_database_problem(opened):
    async with opened() as database:
        with pytest.raises(exc.StatementError, match="required for bind parameter 'missing'"):
            await database.run(text("SELECT :missing"))


# --- reading, and waiting within bounds -------------------------------------------------------


async def test_a_read_that_loses_its_connection_is_tried_once_more_and_a_write_is_not(opened, sql):
    async with opened(DB_POOL_SIZE=1) as database:

        async def lose_the_connection():
            ((pid,),) = await database.run(text("SELECT pg_backend_pid()"))
            await sql.execute("SELECT pg_terminate_backend($1)", pid)
            await until(lambda: not database.pool.open, "the pool has noticed")

        await lose_the_connection()
        assert await database.read(text("SELECT 1")) == [(1,)]
        await lose_the_connection()
        with pytest.raises(DatabaseUnavailable):
            await database.run(text("SELECT 1"))


async def test_a_read_that_fails_otherwise_is_not_tried_again(opened):
    async with opened() as database:
        for error, statement in (
            (DatabaseUnavailable, "SELECT * FROM no_such_table"),
            (RowRefused, "SELECT 1/0"),
        ):
            before = database.pool.waits.count
            with pytest.raises(error):
                await database.read(text(statement))
            assert database.pool.waits.count == before + 1


async def test_a_wait_for_the_database_ends_at_the_pools_timeout_counted_from_arrival(opened):
    async with opened(DB_POOL_TIMEOUT=300) as database:
        pending = asyncio.get_running_loop().create_future()
        with pytest.raises(DatabaseUnavailable, match="within 300 s"):
            await database.within(pending, since=time.monotonic() - 301)
        assert pending.cancelled()
        assert await database.within(asyncio.sleep(0, "in time")) == "in time"
