"""Which rows the log takes, by the time in their ids."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from generation.errors import PartitionMissing
from generation.journal.spool import APART, REPLAY_ROWS
from generation.records import KeyRef
from generation.telemetry import metrics
from tests.support.admin import make_id
from tests.support.partitions import make_room
from tests.support.rows import make_claim, make_row
from tests.support.waiting import until

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
    texts = await sql.fetch("SELECT result FROM generation_generationbody ORDER BY result")
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
    assert abs(found.pop("stored_at") - datetime.now(UTC)) < timedelta(minutes=5)
    assert found.pop("attempts").startswith("[{")
    assert found.pop("metadata") == '{"ticket": "4711"}'
    assert found == {name: getattr(row, name) for name in found}


async def test_rows_of_a_time_without_partitions_wait_apart_and_hold_nobody_up(runtime, sql):
    """More of them than are replayed at once; and the service stays ready."""
    strays = [made(-365, f"early {n}") for n in range(REPLAY_ROWS)]
    await runtime.log._spool.keep([*strays, made(0, "in time")])
    runtime.log._work.set()
    await until(lambda: not runtime.log.snapshot().rows, "an empty journal")
    assert await logs_and_texts(sql) == (1, ["in time"])
    assert runtime.log.stuck == ""
    (apart,) = runtime.log._spool.folder.glob(f"*{APART}*")
    await runtime.log.settle(KeyRef(1, "k"))
    assert apart.exists(), "it is not tried again at once"
    os.utime(apart, (0, 0))
    await runtime.log.settle(KeyRef(1, "k"))
    (again,) = runtime.log._spool.folder.glob(f"*{APART}*")
    day = datetime.now(UTC) + timedelta(days=365)
    await sync_to_async(lambda: make_room(connection.cursor(), day))()
    os.utime(again, (0, 0))
    await runtime.log.settle(KeyRef(1, "k"))
    assert (await logs_and_texts(sql))[0] == REPLAY_ROWS + 1
    assert not again.exists()


async def test_without_a_partition_for_now_rows_wait_in_the_journal_and_the_service_is_not_ready(
    runtime, client, sql, monkeypatch
):
    """As after weeks without maintenance."""

    async def forgotten(*_arguments):
        raise PartitionMissing("the log has no partition for a row", retry_after=1)

    with monkeypatch.context() as patched:
        patched.setattr(runtime.store.logs, "_run", forgotten)
        # Without a limit: to try again until one has passed would mean no answer.
        patched.setattr(runtime.log, "_write_timeout", None)
        assert (await client.post("/api/v1/generate/1")).status_code == 200
        assert runtime.log.snapshot().rows == 1
        await until(lambda: runtime.log.stuck, "it is known to be stuck")
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "no partition" in ready.json()["journal"]
    await until(lambda: not runtime.log.snapshot().rows, "an empty journal")
    assert (await logs_and_texts(sql))[0] == 1
