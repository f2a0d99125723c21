"""What a call cost is settled with its row, exactly once, however its row comes to PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generation.effects import Effect
from generation.journal import lines
from generation.records import Charge
from generation.uuid7 import uuid7
from tests.support.rows import make_claim, make_row


@pytest.fixture
async def lease(sql):
    return await sql.fetchval(
        "INSERT INTO generation_limitlease (run, window_id, granted)"
        " VALUES (gen_random_uuid(), 1, 100) RETURNING id"
    )


def charged(lease, amount=7, claim=None):
    return make_row(claim=claim, charges=(Charge(lease=lease, amount=amount),), replay_of=None)


async def settled(sql):
    return await sql.fetchval("SELECT settled FROM generation_limitlease")


async def test_a_row_settles_once_through_each_statement(store, sql, lease, subtests):
    effect = Effect("generation.Announcement", {"id": str(uuid7())})
    expected = 0
    for name, keyed in {
        "plain": charged(lease),
        "with a key": charged(lease, claim=make_claim()),
        "with effects": replace(charged(lease), effects=(effect,)),
    }.items():
        with subtests.test(name):
            for _ in range(2):
                await store.logs.insert(keyed)
            expected += 7
            assert await settled(sql) == expected


async def test_a_journal_that_is_replayed_twice_settles_once(store, sql, lease):
    keyed = charged(lease)
    line = lines.encode(lines.from_row(keyed))
    for _ in range(2):
        (read,) = lines.read(line)
        await store.logs.insert(lines.to_row(read.record))
    assert await settled(sql) == 7


async def test_rows_of_one_statement_settle_together_and_others_settle_nothing(store, sql, lease):
    rows = [charged(lease, amount) for amount in (1, 2, 3)]
    rows.append(make_row())
    rows.append(charged(lease + 1000))  # its lease is gone
    for future in [store.logs.insert(keyed) for keyed in rows]:
        await future
    assert await settled(sql) == 6
    assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 5


def test_a_line_of_before_has_no_charges():
    record = lines.from_row(charged(1))
    (read,) = lines.read(lines.encode(record))
    for name in ("charges", "price", "is_cost_assumed"):
        del read.record["row"][name]
    assert lines.to_row(read.record).row.charges is None
