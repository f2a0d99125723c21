"""Partitions are there before their rows are, and go when their rows' retention is over."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from django.core.management import call_command
from django.db import connections

from generation import conf
from generation.database.engine import Database
from generation.errors import DatabaseUnavailable
from generation.partitions import ddl, maintenance
from generation.partitions.catalog import DOOMED, Found, look
from generation.partitions.ddl import AHEAD, Parent
from generation.partitions.intervals import DAY, WEEK, interval_at
from generation.partitions.maintenance import LogMaintenance
from tests.support.admin import make_id
from tests.support.locks import until_blocked

PARENT = Parent("parted", DAY)
KEPT = timedelta(days=5)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TABLES = "SELECT relname FROM pg_class WHERE relname LIKE 'parted\\_%' AND relkind = 'r'"
ATTACHED = "SELECT relname FROM pg_class WHERE relname LIKE 'parted\\_2%' AND relispartition"


@pytest.fixture
async def parted(sql, monkeypatch):
    """A small table beside the log, whose rows other tests need. It is noon, so that no day ends
    while a test runs."""

    async def look_at_noon(*given) -> Found:
        return replace(await look(*given), now=NOON)

    monkeypatch.setattr(maintenance, "look", look_at_noon)
    await sql.execute("CREATE TABLE parted (id uuid PRIMARY KEY) PARTITION BY RANGE (id)")
    yield sql
    await sql.execute("DROP TABLE parted")
    for (name,) in await sql.fetch(TABLES):
        await sql.execute(f"DROP TABLE {name}")


@contextlib.asynccontextmanager
async def maintaining():
    """A process's maintenance, of that table."""
    settings = conf.load()
    async with Database.open(settings, connections.settings["default"], strict=True) as database:
        maintained = LogMaintenance(database, settings)
        maintained._kept = {PARENT: KEPT}
        yield maintained


async def maintain() -> list[str]:
    """Returns what was done, but for the statistics."""
    steps: list[str] = []
    async with maintaining() as one:
        assert await one.maintain(steps.append)
    assert steps.pop().startswith("analyzed")
    return steps


async def make(sql, *days_ago: int) -> list[str]:
    """Partitions of some days ago, with a row each. Returns their names."""
    names = []
    for days in days_ago:
        moment = NOON - timedelta(days=days)
        interval = interval_at(moment, DAY)
        for statement in ddl.make(PARENT, interval):
            await sql.execute(statement)
        await sql.execute("INSERT INTO parted VALUES ($1)", make_id(moment))
        names.append(PARENT.partition(interval))
    return names


async def names(sql, query: str = TABLES) -> set[str]:
    return {row[0] for row in await sql.fetch(query)}


async def test_partitions_are_made_for_the_next_eight_weeks(parted):
    steps = await maintain()
    assert all(step.startswith("made ") for step in steps)
    assert len(steps) == AHEAD.days + 2, "yesterday's, today's, and those to come"
    soon = NOON + AHEAD - timedelta(minutes=5)
    await parted.execute("INSERT INTO parted VALUES ($1)", make_id(soon))
    assert await maintain() == []


async def test_a_row_lies_in_the_partition_of_its_day_whatever_the_time_zone(parted):
    await parted.execute("SET timezone = 'Asia/Seoul'")
    await maintain()
    midnight = interval_at(NOON, DAY).ends_at
    borders = [midnight + timedelta(days=n) for n in range(7)]
    for moment in [*borders, *(border - timedelta(milliseconds=1) for border in borders)]:
        found = await parted.fetchval(
            "INSERT INTO parted VALUES ($1) RETURNING tableoid::regclass::text", make_id(moment)
        )
        assert found == PARENT.partition(interval_at(moment, DAY)), moment


async def test_only_what_is_wholly_past_its_retention_is_dropped(parted):
    old, older, kept = await make(parted, 7, 30, 5)
    steps = await maintain()
    assert {f"dropped {old}", f"dropped {older}"} < set(steps)
    assert await names(parted) & {old, older, kept} == {kept}
    assert await parted.fetchval("SELECT count(*) FROM parted") == 1


async def test_a_detaching_that_was_cut_off_is_finished(parted, database_url):
    (old,) = await make(parted, 30)
    reader = await asyncpg.connect(database_url)
    reading = reader.transaction()
    await reading.start()
    await reader.execute("SELECT FROM parted")
    async with maintaining() as one:
        killed = asyncio.create_task(one.maintain(lambda _words: None))
        await until_blocked(parted, "DETACH")
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
    await reading.rollback()
    await reader.close()
    assert old in await names(parted, ATTACHED), "it was cut off in the middle"
    assert await maintain() == [f"detached {old}", f"dropped {old}"]
    assert old not in await names(parted)


async def test_a_detached_table_is_dropped_only_if_we_detached_it(parted):
    ours, theirs = await make(parted, 30, 31)
    for name in (ours, theirs):
        await parted.execute(f"ALTER TABLE parted DETACH PARTITION {name}")
    await parted.execute(ddl.mark(PARENT, ours, DOOMED))
    steps = await maintain()
    assert f"dropped {ours}" in steps
    assert await names(parted) & {ours, theirs} == {theirs}


async def test_a_foreign_table_of_a_partitions_name_stops_nothing(parted):
    taken = PARENT.partition(interval_at(NOON + timedelta(days=3), DAY))
    await parted.execute(f"CREATE TABLE {taken} ()")
    steps = await maintain()
    assert len(steps) == AHEAD.days + 1
    async with maintaining() as one:
        assert await one.measure() < timedelta(days=3), "the gauge shows the gap"


async def test_insertions_wait_for_nothing(parted, database_url):
    """A writer's transaction stays open while partitions are made, and while one is dropped."""
    (old,) = await make(parted, 30)
    writer = await asyncpg.connect(database_url)
    writing = writer.transaction()
    await writing.start()
    (today,) = await make(parted, 0)
    await writer.execute("INSERT INTO parted VALUES ($1)", make_id(NOON))
    steps: list[str] = []
    async with maintaining() as one:
        maintained = asyncio.create_task(one.maintain(steps.append))
        await until_blocked(
            parted, "DETACH"
        )  # the detaching waits for the writer; nobody waits for it
        assert len(steps) == AHEAD.days + 1
        await parted.execute("SET lock_timeout = '50ms'")
        await parted.execute("INSERT INTO parted VALUES ($1)", make_id(NOON))
        modes = await parted.fetch(
            "SELECT mode FROM pg_locks WHERE relation = 'parted'::regclass AND granted"
            " AND pid <> pg_backend_pid()"
        )
        assert "AccessExclusiveLock" not in {row[0] for row in modes}
        await writing.commit()
        assert await maintained
    await writer.close()
    assert await names(parted) & {old, today} == {today}


async def test_one_process_at_a_time_works_and_none_before_it_is_due(parted):
    async with maintaining() as one, maintaining() as other:
        done: list[str] = []
        outcomes = await asyncio.gather(
            one.maintain(done.append, due_after=WEEK), other.maintain(done.append, due_after=WEEK)
        )
        assert sorted(outcomes) == [False, True]
        assert len([step for step in done if step.startswith("made")]) == AHEAD.days + 2
        await make(parted, 30)
        await one.maintain(done.append, due_after=WEEK)
        assert not [step for step in done if step.startswith("dropped")], "it is not due"


async def test_a_process_that_died_at_work_holds_the_others_up_until_its_lease_ends(parted):
    taken = (
        "INSERT INTO generation_maintenance (task, holder, leased_until)"
        " VALUES ('partitions', gen_random_uuid(), now() + interval '1 minute')"
    )
    await parted.execute(taken)
    async with maintaining() as one:
        assert not await one.maintain(lambda _words: None)
        assert await names(parted) == set()
        await parted.execute("UPDATE generation_maintenance SET leased_until = now()")
        assert await one.maintain(lambda _words: None)


async def test_work_that_failed_is_due_again_at_once(parted, monkeypatch):
    async with maintaining() as one:
        with monkeypatch.context() as broken:
            broken.setattr(ddl, "make", lambda *_: ["CREATE TABLE parted ()"])
            with pytest.raises(DatabaseUnavailable, match="already exists"):
                await one.maintain(lambda _words: None, due_after=WEEK)
        done: list[str] = []
        await one.maintain(done.append, due_after=WEEK)
        assert len(done) > AHEAD.days


async def test_a_database_of_before_is_named(parted):
    async with maintaining() as one:
        one._kept = {Parent("generation_usagelog", DAY): KEPT}
        with pytest.raises(DatabaseUnavailable, match="not a partitioned table"):
            await one.maintain(lambda _words: None)


def test_the_command_says_what_it_would_do_and_does_it(committed, capsys):
    call_command("staccato_maintain", dry_run=True)
    assert "would have" not in capsys.readouterr().out, "the migration made what is needed"
    call_command("staccato_maintain")
    assert "for the next 5" in capsys.readouterr().out
