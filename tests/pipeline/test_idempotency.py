"""Idempotency-Key: one LLM call for a request that is sent again."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest

from generation.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LLMTimedOut,
)
from generation.models import GenerationLog, IdempotencyKey
from generation.store.documents import as_document
from tests.support import http
from tests.support.http import Wire
from tests.support.rows import a_request, make_claim, make_row

GENERATE = "/api/v1/generate/1"


def key(value: str = "key-1") -> dict[str, str]:
    return {"Idempotency-Key": value}


def slug(answer) -> str:
    return answer.json()["type"].rpartition(":")[2]


async def test_a_repetition_gets_the_first_answer_and_is_marked(client):
    first = await client.post(GENERATE, json={"input": "x"}, headers=key())
    again = await client.post(GENERATE, json={"input": "x"}, headers=key())
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert await GenerationLog.objects.acount() == 1


async def test_a_key_belongs_to_its_user(client):
    first = await client.post(GENERATE, headers=key())
    other = await client.post("/api/v1/generate/2", json={"input": "x"}, headers=key())
    assert other.status_code == 200
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("body", [{"input": "y"}, {"variables": {"a": "b"}}, {"max_tokens": 5}])
async def test_the_same_key_with_another_request_is_refused(client, body):
    await client.post(GENERATE, json={"input": "x"}, headers=key())
    other = await client.post(GENERATE, json=body, headers=key())
    assert (other.status_code, slug(other)) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("value", ["", " ", "a b", "x" * 256, "ü"])
async def test_a_key_that_is_none_is_refused(client, value):
    answer = await client.post(GENERATE, headers=[(b"idempotency-key", value.encode("latin1"))])
    assert (answer.status_code, slug(answer)) == (400, "idempotency-key-invalid")


async def test_bad_input_leaves_the_key_free(client):
    bad = await client.post("/api/v1/generate/3", json={"input": "x"}, headers=key())
    assert slug(bad) == "missing-variable"
    body = {"input": "x", "variables": {"tone": "dry"}}
    assert (await client.post("/api/v1/generate/3", json=body, headers=key())).status_code == 200


async def test_a_failure_frees_the_key_so_that_a_retry_runs_again(client, runtime, monkeypatch):
    run = runtime.llm.run

    async def fail(context):
        return context.failed(LLMTimedOut("no answer"))

    monkeypatch.setattr(runtime.llm, "run", fail)
    failed = await client.post(GENERATE, headers=key())
    assert failed.status_code == 504
    monkeypatch.setattr(runtime.llm, "run", run)
    again = await client.post(GENERATE, headers=key())
    assert again.status_code == 200
    assert await GenerationLog.objects.acount() == 2
    assert await IdempotencyKey.objects.acount() == 1


async def test_a_user_whose_id_exceeds_the_keys_column_is_unknown_all_the_same(client):
    answer = await client.post(f"/api/v1/generate/{2**40}", headers=key())
    assert answer.status_code == 404


async def test_a_request_without_a_key_runs_no_statement_for_keys(client, runtime):
    holds = runtime.database.pool.holds

    async def borrowings(headers) -> int:
        before = holds.count
        assert (await client.post(GENERATE, headers=headers)).status_code == 200
        while len(runtime.store.usage) or runtime.database.pool.checkedout():
            await asyncio.sleep(0)
        return holds.count - before

    await borrowings({})
    plain = await borrowings({})
    keyed = await borrowings(key())
    assert plain == 3, "read, write, usage"
    assert keyed == plain + 1
    assert not await IdempotencyKey.objects.exclude(key="key-1").aexists()


async def test_a_record_is_forgotten_after_a_day(client, runtime):
    await client.post(GENERATE, headers=key("old"))
    await client.post(GENERATE, headers=key("new"))
    await age("old", "25 hours")
    await runtime.store.claims.purge()
    assert [record.key async for record in IdempotencyKey.objects.all()] == ["new"]


async def test_all_old_records_are_forgotten_however_many_there_are(client, runtime):
    for number in range(5):
        await client.post(GENERATE, headers=key(f"old-{number}"))
        await age(f"old-{number}", "25 hours")
    await runtime.store.claims.purge(rows=2)
    assert not await IdempotencyKey.objects.aexists()


async def test_giving_a_key_back_reads_the_index_and_not_the_table(runtime, sql):
    dialect = runtime.database.engine.dialect
    statement = runtime.store.claims._release_statement.compile(dialect=dialect)
    rows = as_document([make_claim()])
    await sql.execute(
        "INSERT INTO generation_idempotencykey"
        " (user_id, key, fingerprint, claim, leased_until, created_at)"
        " SELECT 1, number, '', gen_random_uuid(), now(), now()"
        " FROM generate_series(1, 100000) AS number"
    )
    await sql.execute("ANALYZE generation_idempotencykey; SET plan_cache_mode = force_generic_plan")
    plan = await sql.fetch(f"EXPLAIN {statement}", rows)
    assert "Index Cond" in "\n".join(line[0] for line in plan)


async def test_a_record_older_than_a_day_does_not_bind_even_before_it_is_purged(client):
    first = await client.post(GENERATE, headers=key())
    await age("key-1", "25 hours")
    again = await client.post(GENERATE, json={"input": "something else"}, headers=key())
    assert again.status_code == 200
    assert again.json()["id"] != first.json()["id"]


async def age(name: str, interval: str) -> None:

    from django.db.models import F

    hours = int(interval.split(maxsplit=1)[0])
    await IdempotencyKey.objects.filter(key=name).aupdate(
        created_at=F("created_at") - timedelta(hours=hours)
    )


async def test_who_leaves_with_a_key_finds_the_answer_later(here, llm):
    llm.release.clear()
    async with here() as service:
        headers = list(key().items())
        exchange = await Wire.begin(service.port, "POST", GENERATE, headers=headers)
        await llm.until(lambda: llm.waiting == 1, "the call")
        await exchange.leave()
        llm.release.set()
        await service.until_pool(lambda now: now["requests_in_flight"] == 0, "the row")
        answer = await http.generate(service.port, headers=headers)
        assert answer.status == 200
        assert answer.headers["idempotency-replayed"] == "true"
        assert (llm.calls, llm.hung_up) == (1, 0)


async def test_the_policy_can_cancel_even_with_a_key(here, llm, sql):
    llm.release.clear()
    async with here(ON_DISCONNECT="cancel") as service:
        headers = list(key().items())
        exchange = await Wire.begin(service.port, "POST", GENERATE, headers=headers)
        await llm.until(lambda: llm.waiting == 1, "the call")
        await exchange.leave()
        await llm.until(lambda: llm.hung_up == 1, "the upstream connection's end")
        await service.until_pool(lambda now: now["requests_in_flight"] == 0, "the row")
        llm.release.set()
        assert (await http.generate(service.port, headers=headers)).status == 200
        assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 2


async def test_a_hundred_at_once_with_one_key_make_one_call_across_two_processes(serve, llm, sql):
    llm.release.clear()
    headers = list(key().items())
    async with serve() as one, serve() as two:
        callers = [
            asyncio.create_task(http.generate((one, two)[number % 2].port, headers=headers))
            for number in range(100)
        ]
        await llm.until(lambda: llm.waiting == 1, "the one call")
        refused = 0
        for done in asyncio.as_completed(callers):
            refused += (await done).status == 409
            if refused == 99:
                break
        llm.release.set()
        answers = await asyncio.gather(*callers)
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200] + [409] * 99
        # Here the owner may end at any moment; of another process's owner only the lease is known.
        waits = {int(answer.headers["retry-after"]) for answer in answers if answer.status == 409}
        assert 1 in waits
        assert max(waits) <= 60
        first = next(answer for answer in answers if answer.status == 200)

        replays = await asyncio.gather(
            *(http.generate((one, two)[number % 2].port, headers=headers) for number in range(100))
        )
        assert {replay.status for replay in replays} == {200}
        assert {replay.body for replay in replays} == {first.body}
        assert llm.calls == 1
        assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 1


async def test_when_the_owner_is_killed_its_lease_ends_and_one_result_is_stored(serve, llm, sql):
    llm.release.clear()
    headers = list(key().items())
    async with serve() as survivor:
        async with serve() as owner:
            with contextlib.suppress(AssertionError):
                exchange = await Wire.begin(owner.port, "POST", GENERATE, headers=headers)
                await llm.until(lambda: llm.waiting == 1, "the owner's call")
                owner.process.kill()
                await owner.ended()
        with pytest.raises(ConnectionError):
            await exchange.answer()
        assert (await http.generate(survivor.port, headers=headers)).status == 409
        await sql.execute(
            "UPDATE generation_idempotencykey SET leased_until = now() - interval '1 s'"
        )
        llm.release.set()
        answer = await http.generate(survivor.port, headers=headers)
        assert answer.status == 200
        assert "idempotency-replayed" not in answer.headers
        assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 1


# --- the fence --------------------------------------------------------------------------------


async def test_a_late_owner_stores_its_row_but_not_the_key(runtime):
    """The first owner stalls past its lease; a second takes over; both finish."""
    claims, logs = runtime.store.claims, runtime.store.logs
    late, prompt = make_claim(), make_claim()

    assert (await claims.claim(late)).won
    assert not (await claims.claim(prompt)).won
    await IdempotencyKey.objects.aupdate(leased_until="2020-01-01T00:00Z")
    assert not (await claims.claim(prompt)).won, "a journal may have the answer"
    assert (await claims.take_over(prompt)).won

    second, first = make_row("second", claim=prompt), make_row("first", claim=late)
    await logs.insert(second)
    await logs.insert(first)
    await logs.insert(second)  # a replay changes nothing
    record = await IdempotencyKey.objects.aget()
    assert record.log_id == second.row.id
    assert await GenerationLog.objects.acount() == 2


async def test_a_failed_row_stores_itself_and_completes_no_key(runtime):
    claim = make_claim()
    assert (await runtime.store.claims.claim(claim)).won
    await runtime.store.logs.insert(make_row("", status="failed", claim=claim))
    assert (await IdempotencyKey.objects.aget()).log_id is None
    assert await GenerationLog.objects.acount() == 1


async def test_a_key_in_use_in_this_process_needs_no_statement(runtime):
    entered, may_end = asyncio.Event(), asyncio.Event()

    async def generate(_claim):
        entered.set()
        await may_end.wait()
        raise LLMTimedOut("over")

    first = asyncio.create_task(runtime.idempotency.once(a_request(), generate))
    await entered.wait()
    before = runtime.database.pool.holds.count
    with pytest.raises(IdempotencyKeyInUse):
        await runtime.idempotency.once(a_request(), generate)
    with pytest.raises(IdempotencyKeyReused):
        await runtime.idempotency.once(a_request("other"), generate)
    assert runtime.database.pool.holds.count == before
    may_end.set()
    with pytest.raises(LLMTimedOut):
        await first
