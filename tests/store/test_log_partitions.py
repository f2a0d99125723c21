"""Which rows the log takes, by the time in their ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from generation.errors import PartitionMissing
from generation.telemetry import metrics
from tests.support.admin import make_id
from tests.support.partitions import make_room
from tests.support.rows import make_claim, make_row

LOG_DAYS, BODY_DAYS = 60, 10


@pytest.fixture
def _short_retention(settings) -> None:
    days = {"LOG_RETENTION_DAYS": LOG_DAYS, "BODY_RETENTION_DAYS": BODY_DAYS}
    settings.STACCATO = {**settings.STACCATO, **days}


def made(days_ago: float, text: str, **changes):
    return make_row(text, id=make_id(datetime.now(UTC) - timedelta(days=days_ago)), **changes)


async def insert(store, *rows) -> list:
    return await store.logs._insert_batch(rows)


async def logs_and_texts(sql) -> tuple[int, list[str]]:
    count = await sql.fetchval("SELECT count(*) FROM generation_generationlog")
    texts = await sql.fetch("SELECT result FROM generation_generationbody ORDER BY id")
    return count, [row[0] for row in texts]


@pytest.mark.parametrize("claim", [None, make_claim()], ids=["unkeyed", "keyed"])
async def test_a_row_older_than_its_retention_is_counted_and_its_neighbours_are_stored(
    _short_retention, runtime, sql, claim
):
    day = datetime.now(UTC) - timedelta(days=BODY_DAYS + 1)
    await sync_to_async(lambda: make_room(connection.cursor(), day))()
    expired = metrics.EXPIRED_ROWS._value.get()
    rows = [made(LOG_DAYS + 1, "old"), made(BODY_DAYS + 1, "bare"), made(0, "new", claim=claim)]
    rows = [type(row)(row.row, claim) for row in rows]
    assert await insert(runtime.store, *rows) == [None] * 3
    assert await logs_and_texts(sql) == (2, ["new"])
    assert metrics.EXPIRED_ROWS._value.get() == expired + 1


async def test_a_row_without_a_partition_keeps_no_other_from_being_stored(runtime, sql):
    """One process's clock is a year ahead."""
    rows = [made(0, "one"), made(-365, "early"), made(0, "two")]
    first, second, third = await insert(runtime.store, *rows)
    assert first is third is None
    assert isinstance(second, PartitionMissing)
    assert await logs_and_texts(sql) == (2, ["one", "two"])


async def test_a_row_that_is_stored_again_changes_nothing(runtime, sql):
    row = made(0, "first")
    await insert(runtime.store, row)
    await sql.execute("UPDATE generation_generationbody SET result = ''")
    await insert(runtime.store, row)
    assert await logs_and_texts(sql) == (1, [""])
    await sql.execute("DELETE FROM generation_generationbody")
    await insert(runtime.store, row)
    assert await logs_and_texts(sql) == (1, []), "texts that were erased stay erased"


async def test_every_value_of_a_row_is_stored(runtime, sql):
    row = made(0, "a result", prompt="p" * 300, error="e", raw_reply="raw", system="s").row
    await insert(runtime.store, make_row(**{name: getattr(row, name) for name in row.__slots__}))
    found = dict(
        await sql.fetchrow(
            "SELECT * FROM generation_generationlog JOIN generation_generationbody USING (id)"
        )
    )
    assert found.pop("excerpt") == "p" * 240
    assert abs(found.pop("stored_at") - datetime.now(UTC)) < timedelta(minutes=5)
    assert found.pop("attempts").startswith("[{")
    assert found.pop("metadata") == '{"ticket": "4711"}'
    assert found == {name: getattr(row, name) for name in found}
