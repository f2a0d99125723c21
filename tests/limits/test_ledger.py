"""Processes together never take more than a limit has, and none of it is lost."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from generation.errors import DatabaseUnavailable
from generation.limits.ledger import Short
from generation.limits.refusals import RESERVED_RETRY_S
from generation.limits.rules import Rule


async def reserve(ledger, rule, amount=1) -> bool:
    try:
        await ledger.reserve([(ledger.block(rule, ""), amount)], time.monotonic())
    except Short:
        return False
    return True


async def answered(block) -> None:
    """Waits for what was asked, unless its answer has come already."""
    if block.answer is not None:
        await block.answer


@pytest.mark.parametrize(("amount", "each"), [(50, 1), (50 * 7, 7)])
async def test_two_processes_admit_exactly_what_a_budget_has(process, limit, charged, amount, each):
    rule = await limit(amount=amount)
    ledgers = [await process(), await process()]
    asked = [reserve(ledgers[number % 2], rule, each) for number in range(200)]
    assert sum(await asyncio.gather(*asked)) == 50
    granted, _, committed = await charged()
    assert granted == committed == amount


async def test_no_call_waits_for_an_answer_that_has_come_already(process, limit):
    """It would ask, and not wait, for ever: nothing else would run in the process."""
    rule = await limit(amount=100)
    ledger = await process()
    block = ledger.block(rule, "")
    block.answer = come = asyncio.get_running_loop().create_future()
    come.set_result(None)  # and its callbacks have not run
    answer = ledger._ask(block, 60)
    assert answer is not come
    await answer
    assert block.answer is None
    assert await reserve(ledger, rule, 60)


async def test_what_a_call_leaves_unspent_is_free_again(process, limit):
    rule = await limit(amount=100)
    ledger = await process()
    assert await reserve(ledger, rule, 60)
    assert not await reserve(ledger, rule, 60)
    ledger.block(rule, "").settle(60, 10)
    assert await reserve(ledger, rule, 60)


async def test_a_call_that_one_limit_refuses_takes_nothing_of_another(process, limit):
    plenty, little = await limit(amount=100), await limit(amount=1, window="day")
    ledger = await process()
    needs = [(ledger.block(plenty, ""), 5), (ledger.block(little, ""), 2)]
    with pytest.raises(Short):
        await ledger.reserve(needs, time.monotonic())
    assert ledger.block(plenty, "").reserved == 0


async def test_a_process_that_ends_gives_back_what_it_did_not_spend(process, limit, charged):
    rule = await limit(amount=100)
    ledger = await process()
    assert await reserve(ledger, rule, 40)
    ledger.block(rule, "").settle(40, 25)
    await ledger.close()
    assert await charged() == (25, 0, 25)


async def test_idle_parts_go_back_where_little_is_left_for_others(process, limit, charged, clock):
    rule = await limit(amount=10)
    first, second = await process(clock=clock), await process()
    assert await reserve(first, rule, 2)
    block = first.block(rule, "")
    block.demand = 6.0
    await first._ask(block, 0)
    assert (await charged())[0] == 6
    block.demand = 0.0
    for _ in range(4):
        clock.now += 2
        await first.tick()
        await answered(block)
    assert await reserve(second, rule, 7)


async def test_what_lies_idle_elsewhere_is_back_when_a_refused_caller_is_to_ask_again(
    process, limit, clock
):
    """The process that holds it has last heard that plenty is left for the others."""
    rule = await limit(amount=100)
    first, second = await process(clock=clock), await process()
    assert await reserve(first, rule, 2)
    block = first.block(rule, "")
    block.demand = 26.0
    await first._ask(block, 0)
    assert block.left > rule.amount / 2
    assert await reserve(second, rule, block.left)
    assert not await reserve(second, rule, 20)
    for _ in range(int(RESERVED_RETRY_S)):
        clock.now += 1
        await first.tick()
        await answered(block)
    assert await reserve(second, rule, 20)


async def test_what_was_spent_beyond_its_reservation_is_taken_of_the_window(
    process, limit, charged, clock
):
    rule = await limit(amount=100)
    ledger = await process(clock=clock)
    assert await reserve(ledger, rule, 40)
    block = ledger.block(rule, "")
    block.settle(40, 70 + block.granted)
    await ledger.tick()
    await answered(block)
    assert (await charged())[2] >= 110
    assert not await reserve(await process(), rule, 1)


async def test_a_block_is_good_until_the_holder_may_be_taken_for_dead(
    process, limit, charged, sql, clock
):
    """A process that was stopped for longer asks before it takes more: `reconcile` may have given
    the rest of its lease to others."""
    rule = await limit(amount=100)
    ledger = await process(ttl_s=30.0, clock=clock)
    assert await reserve(ledger, rule, 10)
    block = ledger.block(rule, "")
    block.settle(10, 0)
    await sql.execute("UPDATE generation_limitlease SET granted = 0")
    await sql.execute("UPDATE generation_limitwindow SET committed = 100")
    clock.now += 31
    assert not await reserve(ledger, rule, 10)
    granted, _, committed = await charged()
    assert (granted, committed) == (0, 100)


async def test_the_dead_have_nothing_in_flight(process, limit, sql):
    rule = await limit(unit="in_flight", amount=2, window="")
    dead, alive = await process(), await process()
    assert await reserve(dead, rule)
    assert await reserve(dead, rule)
    assert not await reserve(alive, rule)
    await sql.execute(
        "UPDATE generation_limitholder SET alive_until = now() - interval '1 s' WHERE run = $1",
        dead.run,
    )
    await alive._tables.bury()
    assert await reserve(alive, rule)
    assert await reserve(alive, rule)
    assert not await reserve(alive, rule)
    # It was only asleep: its calls still run, and it asks for each further one.
    assert not await reserve(dead, rule)


async def test_what_the_dead_overspent_is_taken_of_the_window(process, limit, sql, charged):
    rule = await limit(amount=100)
    dead, alive = await process(), await process()
    assert await reserve(dead, rule, 40)
    await sql.execute("UPDATE generation_limitlease SET settled = 90")
    await sql.execute("UPDATE generation_limitholder SET alive_until = now() - interval '1 s'")
    await alive._tables.bury()
    assert await charged() == (90, 90, 90)
    assert not await reserve(alive, rule, 11)


async def test_a_rate_refills_and_lets_a_larger_call_through_when_it_is_full(process, limit, sql):
    rule = await limit(unit="tokens", amount=500, window="minute")
    ledger = await process()
    assert await reserve(ledger, rule, 1024)
    assert not await reserve(ledger, rule, 1)
    await sql.execute(
        "UPDATE generation_limitwindow SET as_of = as_of - interval '62 s'"  # of 123 s to full
    )
    assert not await reserve(ledger, rule, 500)
    await sql.execute("UPDATE generation_limitwindow SET as_of = as_of - interval '63 s'")
    assert await reserve(ledger, rule, 500)


async def test_a_slow_rate_loses_no_part_of_a_unit(process, limit, sql):
    rule = await limit(amount=5, window="hour")
    ledger = await process()
    for _ in range(5):
        assert await reserve(ledger, rule)
    for _ in range(10):  # asked often, it has refilled once in twelve minutes
        await sql.execute("UPDATE generation_limitwindow SET as_of = as_of - interval '70 s'")
        assert not await reserve(ledger, rule)
    await sql.execute("UPDATE generation_limitwindow SET as_of = as_of - interval '20 s'")
    assert await reserve(ledger, rule)
    assert not await reserve(ledger, rule)


async def test_a_rate_that_is_asked_often_refills_no_more_than_it_should(process, limit, sql):
    rule = await limit(amount=600, window="minute")
    ledger = await process()
    block = ledger.block(rule, "")
    began = time.monotonic()
    assert await reserve(ledger, rule, 600)
    for _ in range(10):  # in each of these, 0.35 s in which three and a half refill
        await sql.execute("UPDATE generation_limitwindow SET as_of = as_of - interval '0.35 s'")
        await ledger._ask(block, 0)
    refilled_meanwhile = 10 * (time.monotonic() - began)
    assert 35 <= block.left + block.free <= 36 + refilled_meanwhile


async def test_one_answer_serves_all_who_wait(process, limit, monkeypatch):
    """Each lacks only a part of what it takes, since something is free; together they lack more."""
    rule = await limit(unit="tokens", amount=10**9)
    ledger = await process()
    block = ledger.block(rule, "")
    await ledger._ask(block, 900)
    statements = []
    ask = ledger._tables.ask

    async def count(asks, **named):
        statements.append(asks)
        return await ask(asks, **named)

    monkeypatch.setattr(ledger._tables, "ask", count)
    assert block.free == 900
    assert all(await asyncio.gather(*(reserve(ledger, rule, 1000) for _ in range(100))))
    assert len(statements) <= 2


async def test_a_new_window_is_new_for_all_and_made_once(process, limit, sql, clock, monkeypatch):
    """All processes may have been down over the border: nothing has to run at it."""
    row = await limit(amount=3)
    rule = Rule(row.id, "all", "", "", "", "requests", 3, "month", ZoneInfo("Asia/Tokyo"))
    ledgers = [await process(clock=clock) for _ in range(4)]
    set_time = {ledger: ledger.note_time for ledger in ledgers}
    for ledger in ledgers:
        monkeypatch.setattr(ledger, "note_time", lambda _now: None)  # not PostgreSQL's: ours
        set_time[ledger](datetime(2026, 1, 31, 14, 59, 59, tzinfo=UTC))
    assert ledgers[0].block(rule, "").window.start == datetime(2025, 12, 31, 15, tzinfo=UTC)
    assert all([await reserve(ledgers[0], rule) for _ in range(3)])
    for ledger in ledgers:
        set_time[ledger](datetime(2026, 1, 31, 15, tzinfo=UTC))
    taken = await asyncio.gather(*(reserve(ledger, rule) for ledger in ledgers * 5))
    assert sum(taken) == 3
    starts = await sql.fetch("SELECT start FROM generation_limitwindow ORDER BY start")
    assert [row["start"].hour for row in starts] == [15, 15]
    assert starts[1]["start"] - starts[0]["start"] == timedelta(days=31)


async def test_where_postgresql_does_not_answer_no_more_than_the_block_is_spent(
    process, limit, monkeypatch
):
    rule = await limit(amount=1000)
    ledger = await process()
    assert await reserve(ledger, rule)
    block = ledger.block(rule, "")
    block.demand = 10.0
    await ledger._ask(block, 0)
    free = block.free
    assert free > 0

    async def away(*_args, **_named):
        raise DatabaseUnavailable("it is frozen")

    monkeypatch.setattr(ledger._tables, "ask", away)
    for _ in range(free):
        assert await reserve(ledger, rule)
    with pytest.raises(DatabaseUnavailable):
        await reserve(ledger, rule)


async def test_a_lost_answer_strands_nothing(process, limit, monkeypatch, charged):
    rule = await limit(amount=100)
    ledger = await process()
    assert await reserve(ledger, rule, 10)
    ask = ledger._tables.ask

    async def lose(*args, **named):
        await ask(*args, **named)
        raise DatabaseUnavailable("the connection broke before the answer came")

    monkeypatch.setattr(ledger._tables, "ask", lose)
    with pytest.raises(DatabaseUnavailable):
        await reserve(ledger, rule, 30)
    monkeypatch.undo()
    assert await reserve(ledger, rule, 31)
    block = ledger.block(rule, "")
    assert block.granted == (await charged())[0]
