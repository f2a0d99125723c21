"""When a key changes hands: its answer may wait in a journal, its owner may be gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db.models.functions import Now

from generation.errors import (
    DatabaseUnavailable,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LLMTimedOut,
)
from generation.journal import lines
from generation.journal.dead_letters import DeadLetters
from generation.journal.file import JournalFile
from generation.models import IdempotencyKey
from generation.pipeline.idempotency import fingerprint
from generation.records import Claim, KeyedRow
from tests.support.rows import a_request, make_claim, make_row
from tests.support.waiting import HANG_S, until


async def an_answered_key(runtime):
    """Its row waits, and its lease has ended, as after a long outage of the database."""
    request = a_request()
    asked = fingerprint(request, runtime.idempotency._hash)
    claim = Claim(1, request.idempotency_key, asked, uuid4())
    assert (await runtime.store.claims.claim(claim)).won
    await IdempotencyKey.objects.aupdate(leased_until="2020-01-01T00:00Z")
    return request, make_row(claim=claim)


async def never(_claim):
    raise AssertionError("it is paid for twice")


def a_journal_with(runtime, row) -> JournalFile:
    """Another process's: it lives while the file is open."""
    spool = runtime.log._spool
    file = JournalFile.create(spool.folder, spool._journal.database, 65_536)
    file.append([lines.encode(lines.from_row(row))])
    return file


async def test_an_answer_in_our_own_journal_is_stored_before_its_key_is_taken_over(runtime):
    request, row = await an_answered_key(runtime)
    await runtime.log._spool.keep([row])
    answers = await asyncio.gather(*(runtime.idempotency.once(request, never) for _ in range(30)))
    assert {answer.id for answer in answers} == {row.row.id}


async def test_an_answer_in_memory_only_is_stored_before_its_key_is_taken_over(runtime):
    request, row = await an_answered_key(runtime)
    runtime.log._spool.remember([row], "a test says so")
    assert (await runtime.idempotency.once(request, never)).id == row.row.id


async def test_a_dead_siblings_answer_is_stored_before_its_key_is_taken_over(runtime):
    request, row = await an_answered_key(runtime)
    a_journal_with(runtime, row).close()
    assert (await runtime.idempotency.once(request, never)).id == row.row.id


async def test_a_living_siblings_answer_keeps_its_key_until_it_is_stored(runtime):
    request, row = await an_answered_key(runtime)
    file = a_journal_with(runtime, row)
    with pytest.raises(IdempotencyKeyInUse) as caught:
        await runtime.idempotency.once(request, never)
    assert caught.value.retry_after_header == "1"
    await runtime.store.logs.insert(row)
    file.remove()
    assert (await runtime.idempotency.once(request, never)).id == row.row.id


@pytest.fixture
def dead_letters(runtime, tmp_path, monkeypatch) -> DeadLetters:
    """Of this test alone."""
    letters = DeadLetters(tmp_path, "db")
    monkeypatch.setattr(runtime.log, "_dead_letters", letters)
    return letters


async def test_an_answer_whose_row_is_refused_is_given_again(runtime, dead_letters):
    request, row = await an_answered_key(runtime)
    await runtime.log.write(refused(row))
    again = await runtime.idempotency.once(request, never)
    assert (again.id, again.result, again.replayed) == (row.row.id, "a result", True)
    with pytest.raises(IdempotencyKeyReused):
        await runtime.idempotency.once(replace(request, input="another"), never)


async def test_a_refused_answer_that_is_in_memory_only_is_given_again(
    runtime, dead_letters, monkeypatch
):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    request, row = await an_answered_key(runtime)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(dead_letters, "add", fail)
        await runtime.log.write(refused(row))
        assert (await runtime.idempotency.once(request, never)).id == row.row.id
    await runtime.log._spool.replay(runtime.log._hand_over)


async def test_a_refused_row_without_an_answer_or_of_an_earlier_claim_holds_no_key(
    runtime, dead_letters
):
    request, row = await an_answered_key(runtime)
    await runtime.log.write(refused(row, status="failed"))
    earlier = replace(row.claim, token=uuid4())
    await runtime.log.write(refused(KeyedRow(row.row, earlier), id=uuid4()))
    assert dead_letters.count() == 2
    await until_it_runs_again(runtime, request)


def refused(keyed: KeyedRow, **changes) -> KeyedRow:
    changes["latency_ms"] = "soon"
    return replace(keyed, row=replace(keyed.row, **changes))


async def test_no_key_is_taken_over_while_the_journals_cant_be_stored(runtime, monkeypatch):
    request, row = await an_answered_key(runtime)
    await runtime.log._spool.keep([row])

    async def away(_statement, _rows, _more):
        raise DatabaseUnavailable("a test says so")

    with monkeypatch.context() as outage:
        outage.setattr(runtime.store.logs, "_run", away)
        with pytest.raises(DatabaseUnavailable):
            await runtime.idempotency.once(request, never)
    await IdempotencyKey.objects.aupdate(leased_until="2020-01-01T00:00Z")  # the try renewed it
    assert (await runtime.idempotency.once(request, never)).id == row.row.id


async def test_a_key_that_no_journal_knows_is_taken_over_once(runtime):
    request, _row = await an_answered_key(runtime)
    a_journal_with(runtime, make_row(claim=make_claim("another"))).close()
    calls = []

    async def generate(claim):
        calls.append(claim)
        # One that comes later would read the stored answer.
        await until(lambda: sum(attempt.done() for attempt in attempts) == 9, "nine refusals")
        await runtime.store.logs.insert(make_row(claim=claim))
        return "an answer"

    attempts = [asyncio.create_task(runtime.idempotency.once(request, generate)) for _ in range(10)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert outcomes.count("an answer") == len(calls) == 1
    assert all(isinstance(other, IdempotencyKeyInUse) for other in outcomes if other != "an answer")


# --- keys do not get stuck ----------------------------------------------------------------------


async def until_it_runs_again(runtime, request) -> None:
    async def generate(_claim):
        return "again"

    async with asyncio.timeout(HANG_S):
        while True:
            try:
                assert await runtime.idempotency.once(request, generate) == "again"
            except IdempotencyKeyInUse as error:
                assert error.retry_after_header == "1"  # it is about to be freed
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_key_that_could_not_be_freed_is_freed_once_the_database_is_back(
    runtime, monkeypatch
):
    async def fail(_claim):
        raise LLMTimedOut("over")

    async def away(_claims):
        raise DatabaseUnavailable("a test says so")

    with monkeypatch.context() as outage:
        outage.setattr(runtime.store.claims._releases, "_flush", away)
        with pytest.raises(LLMTimedOut):
            await runtime.idempotency.once(a_request(), fail)
        with pytest.raises(IdempotencyKeyInUse):
            await runtime.idempotency.once(a_request(), fail)
    await until_it_runs_again(runtime, a_request())


async def test_a_claim_whose_reply_was_lost_is_given_back(runtime, monkeypatch):
    flush = runtime.store.claims._claims._flush

    async def lose_the_reply(claims):
        await flush(claims)
        raise DatabaseUnavailable("a test says so")

    with monkeypatch.context() as outage:
        outage.setattr(runtime.store.claims._claims, "_flush", lose_the_reply)
        with pytest.raises(DatabaseUnavailable):
            await runtime.idempotency.once(a_request(), never)
    await until_it_runs_again(runtime, a_request())


async def test_a_key_that_could_not_be_freed_is_freed_at_the_latest_when_the_process_ends(
    runtime, monkeypatch
):
    runtime.idempotency._release_later(claim := make_claim())
    runtime.idempotency._releasing.cancel()
    assert (await runtime.store.claims.claim(claim)).won
    await runtime.idempotency.close()
    assert not await IdempotencyKey.objects.aexists()


async def test_retry_after_says_how_long_another_processs_lease_still_has(runtime):
    assert (await runtime.store.claims.claim(make_claim())).won
    asked = fingerprint(a_request(), runtime.idempotency._hash)
    for seconds, least, most in ((3600, 60, 60), (40, 20, 40), (1, 1, 1)):
        await IdempotencyKey.objects.aupdate(leased_until=Now() + timedelta(seconds=seconds))
        with pytest.raises(IdempotencyKeyReused):  # it is another request's
            await runtime.idempotency.once(a_request(), never)
        await IdempotencyKey.objects.aupdate(fingerprint=asked)
        with pytest.raises(IdempotencyKeyInUse) as caught:
            await runtime.idempotency.once(a_request(), never)
        assert least <= int(caught.value.retry_after_header) <= most
        await IdempotencyKey.objects.aupdate(fingerprint="")
