"""A plain table gets partitions where it lies, or stays as it is and the reason is given."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from django.core.management import call_command
from django.db import connections

from generation import conf
from generation.database.engine import Database
from generation.partitions import convert as converting
from generation.partitions.convert import CannotConvert, convert
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY
from tests.support.admin import make_id
from tests.support.locks import until_blocked

PARENT = Parent("whole", DAY)
COLUMNS = ("id", "words")
NOW = datetime.now(UTC)


@pytest.fixture
async def plain(sql):
    await sql.execute(
        "CREATE TABLE whole (id uuid PRIMARY KEY, words text NOT NULL DEFAULT 'none');"
        "CREATE INDEX whole_words ON whole (words, id DESC) WHERE words <> 'none';"
        "CREATE TABLE other (whole_id uuid)"
    )
    await sql.executemany(
        "INSERT INTO whole VALUES ($1, 'before')",
        [(make_id(NOW - timedelta(days=days)),) for days in range(40)],
    )
    yield sql
    await sql.execute(
        "DROP PUBLICATION IF EXISTS published; DROP TABLE whole CASCADE; DROP TABLE other CASCADE"
    )
    await sql.execute("DROP FUNCTION IF EXISTS nothing()")


@contextlib.asynccontextmanager
async def opened():
    async with Database.open(conf.load(), connections.settings["default"], strict=True) as database:
        yield database


async def run(columns=COLUMNS) -> bool:
    async with opened() as database:
        return await convert(database, PARENT, columns, lambda _words: None)


async def checks(sql) -> int:
    return await sql.fetchval("SELECT count(*) FROM pg_constraint WHERE conname = 'whole_until'")


async def test_the_rows_stay_where_they_are_and_new_ones_find_room(plain):
    files = "SELECT array_agg(DISTINCT pg_relation_filenode(oid)) FROM pg_class WHERE relname ~ $1"
    before = await plain.fetchval(files, "^whole")
    prepared = await plain.prepare(
        "INSERT INTO whole (id) VALUES ($1) RETURNING tableoid::regclass::text"
    )
    await prepared.fetchval(make_id(NOW))
    assert await run()
    assert set(before) < set(await plain.fetchval(files, "^whole")) | {None}
    assert (await prepared.fetchval(make_id(NOW))).startswith("whole_until_")
    assert await plain.fetchval("SELECT count(*) FROM whole") == 42
    assert await plain.fetchval("SELECT words FROM whole WHERE words = 'none' LIMIT 1") == "none"
    assert await checks(plain) == 0, "it would be in the way of the rows to come"
    attached = await plain.fetchval(
        "SELECT count(*) FROM pg_inherits WHERE inhparent IN"
        " ('whole_words'::regclass, 'whole_pkey'::regclass)"
    )
    assert attached == 2, "no index was built"
    assert not await run(), "it is partitioned now"


async def test_privileges_go_along(plain):
    await plain.execute("GRANT SELECT ON whole TO pg_monitor")
    assert await run()
    assert await plain.fetchval("SELECT has_table_privilege('pg_monitor', 'whole', 'SELECT')")


TRIGGER = (
    "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER heard BEFORE INSERT ON whole FOR EACH ROW EXECUTE FUNCTION nothing()"
)
HINDRANCES = {
    "ALTER TABLE other ADD CONSTRAINT to_whole FOREIGN KEY (whole_id) REFERENCES whole": (
        "the foreign key to_whole of other"
    ),
    "CREATE VIEW seen AS SELECT words FROM whole": "the view seen",
    TRIGGER: "the trigger heard",
    "CREATE PUBLICATION published FOR TABLE whole": "the publication published",
    "ALTER TABLE whole REPLICA IDENTITY FULL": "replica identity",
    "ALTER TABLE whole ADD CHECK (words <> '')": "the constraint whole_words_check",
    "CREATE UNIQUE INDEX once ON whole (words) WHERE words = 'once'": "the unique index once",
    "GRANT SELECT (words) ON whole TO pg_monitor": "privileges on single columns",
}


@pytest.mark.parametrize("hindrance", HINDRANCES)
@pytest.mark.filterwarnings("ignore:.*wal_level")
async def test_what_would_be_left_behind_is_named(plain, hindrance):
    await plain.execute(hindrance)
    with pytest.raises(CannotConvert, match=HINDRANCES[hindrance]):
        await run()
    assert await plain.fetchval("SELECT relkind FROM pg_class WHERE relname = 'whole'") == b"r"
    assert await checks(plain) == 0


async def test_a_table_with_other_columns_is_left_alone(plain):
    with pytest.raises(
        CannotConvert, match=r"has the columns words, .* and lacks the columns cost"
    ):
        await run(("id", "cost"))


async def test_a_row_of_the_far_future_is_named(plain):
    late = make_id(NOW + timedelta(days=900))
    await plain.execute("INSERT INTO whole VALUES ($1)", late)
    with pytest.raises(CannotConvert, match=str(late)):
        await run()


async def test_writers_do_not_wait_for_a_conversion_that_waits(plain, database_url, monkeypatch):
    """A long transaction holds the table: we ask for it shortly, again and again."""
    monkeypatch.setattr(converting, "RETRY_S", 0.05)
    long = await asyncpg.connect(database_url)
    holding = long.transaction()
    await holding.start()
    await long.execute("SELECT FROM whole LIMIT 1")
    try:
        conversion = asyncio.create_task(run())
        for _round in range(3):
            await until_blocked(plain)
            await plain.execute("SET lock_timeout = '20s'")
            await plain.execute("INSERT INTO whole VALUES ($1)", make_id(NOW))
        await holding.rollback()
        assert await conversion
    finally:
        await long.close()
    assert await plain.fetchval("SELECT count(*) FROM whole") == 43


async def test_a_conversion_that_fails_leaves_no_check_behind(plain, monkeypatch):
    monkeypatch.setattr(converting, "_switch", lambda *_: ["SELECT 1 / 0"])
    with pytest.raises(Exception, match="division by zero"):
        await run()
    assert await checks(plain) == 0


def test_the_command_says_that_there_is_nothing_to_do(committed, capsys):
    call_command("staccato_partition", convert=True)
    assert "generation_generationlog is partitioned" in capsys.readouterr().out
