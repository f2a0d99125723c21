"""Streams are open while their process is ended or killed, or while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from tests.durability.support import FIVE_MINUTES, UNTIDY, looking, stored, until_stored
from tests.support.dialects import AnthropicDialect
from tests.support.locks import until_blocked
from tests.support.provider import streams
from tests.support.streams import Follower, kinds_of, text_of
from tests.support.waiting import until

ASK = {"input": "Why is the sky blue?", "stream": True}
ROW = (
    "SELECT l.status, l.error_type, b.result FROM generation_generationlog l"
    " LEFT JOIN generation_generationbody b USING (id)"
)


def held_by(gate: asyncio.Event):
    """An answer whose second word waits for the gate."""
    *first, second, end, stop, over = AnthropicDialect().stream("Because", " air scatters light.")
    return streams(*first, gate, second, end, stop, over)


async def begun(running, number: int = 1, headers=()) -> list[Follower]:
    """So many streams, each of which has brought its first word."""
    followers = await asyncio.gather(
        *(Follower.begin(running.port, payload=ASK, headers=headers) for _ in range(number))
    )
    for follower in followers:
        assert follower.status == 200
        assert (await follower.event()).kind == "start"
        assert (await follower.event()).data == {"text": "Because"}
    return followers


async def test_sigterm_with_two_hundred_streams_ends_each_with_its_row(serve, llm, postgres):
    """Those whose provider goes on are whole; the others say that the service ends."""
    soon, never = asyncio.Event(), asyncio.Event()
    llm.script = [held_by(soon if number % 2 else never) for number in range(200)]
    async with serve(
        LLM_TIMEOUT=FIVE_MINUTES,
        STACCATO_DRAIN_TIMEOUT="5",
        STACCATO_WRITE_TIMEOUT="10",
        DB_POOL_TIMEOUT="10",
    ) as running:
        followers = await begun(running, 200)
        ends = [asyncio.create_task(follower.rest()) for follower in followers]
        running.terminate()
        soon.set()
        endings = [events[-1] for events in await asyncio.gather(*ends)]
        assert await running.ended() in {0, 143, -15}
        for word in UNTIDY:
            assert word not in running.log, running.log
    done = {ending.data["id"] for ending in endings if ending.kind == "done"}
    errors = [ending.data["type"] for ending in endings if ending.kind == "error"]
    assert len(done) == 100
    assert errors == ["urn:staccato:problem:drained"] * 100
    assert await stored(postgres) == done
    async with looking(postgres) as sql:
        rows = [tuple(row) for row in await sql.fetch(f"{ROW} WHERE status <> 'succeeded'")]
    assert rows == [("cancelled", "drained", "Because")] * 100


@contextlib.asynccontextmanager
async def insertion_held(sql):
    """A row that is inserted waits for the block's end, and is committed then, come what may."""
    await sql.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END$$;"
        "CREATE TRIGGER held AFTER INSERT ON generation_generationlog"
        " FOR EACH ROW EXECUTE FUNCTION hold(); SELECT pg_advisory_lock(1)"
    )
    try:
        yield
    finally:
        await sql.execute("SELECT pg_advisory_unlock(1)")


async def test_a_kill_between_the_row_and_the_end_of_its_stream_loses_no_answer(
    serve, llm, postgres
):
    key = [("Idempotency-Key", "once")]
    gate = asyncio.Event()
    llm.behave = held_by(gate)
    patient = {"STACCATO_WRITE_TIMEOUT": "60"}
    async with looking(postgres) as sql, serve(**patient) as running:
        try:
            async with insertion_held(sql):
                (follower,) = await begun(running, headers=key)
                gate.set()
                await until_blocked(sql, "WITH rows AS")
                running.process.send_signal(signal.SIGSTOP)  # it can't learn of the commit
            await until(lambda: stored(postgres), "the row")
        finally:
            running.process.kill()
            await sql.execute("DROP FUNCTION hold CASCADE")
        with pytest.raises(ConnectionError):
            while event := await follower.event():
                assert event.kind == "delta", "the finish came before the row"
        await follower.leave()
    async with serve() as again:
        repeated = await Follower.begin(again.port, payload=ASK, headers=key)
        assert repeated.headers["idempotency-replayed"] == "true"
        events = await repeated.rest()
    assert kinds_of(events) == ["start", "usage", "done"]
    assert text_of(events) == events[-1].data["result"] == "Because air scatters light."
    assert {events[-1].data["id"]} == await stored(postgres)
    assert llm.calls == 1


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_a_stream_ends_whole_though_the_database_is_away_from_its_first_word_on(
    serve, llm, postgres, how
):
    gate = asyncio.Event()
    llm.behave = held_by(gate)
    async with serve() as running:
        followers = await begun(running, 20)
        if how == "stopped":
            postgres.stop_at_once()
        else:
            postgres.freeze()
        gate.set()
        ended = await asyncio.gather(*(follower.rest() for follower in followers))
        assert [kinds_of(events) for events in ended] == [["usage", "done"]] * 20
        assert (await running.pool())["journal"]["rows"] == 20
        if how == "stopped":
            postgres.start()
        else:
            postgres.thaw()
        await until_stored(postgres, {events[-1].data["id"] for events in ended})
        async with looking(postgres) as sql:
            rows = [tuple(row) for row in await sql.fetch(ROW)]
    assert rows == [("succeeded", "", "Because air scatters light.")] * 20
