"""What callers get: 429 where waiting cures it, and when; 403 where a person has to act."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async

from generation.errors import TooManyInFlight
from generation.models import ApiKey, GenerationLog, Limit, LimitLease
from generation.records import Grant
from generation.runtime.process import Runtime
from tests.support.in_process import in_process_client
from tests.support.keys import amake_key, bearer, rows_of
from tests.support.windows import zone_of_noon

NATIVE = "/api/v1/generate/2"
CHAT = "/u/2/v1/chat/completions"
MESSAGES = "/u/2/v1/messages"
SAYS = {"model": "simulated", "max_tokens": 10, "messages": [{"role": "user", "content": "a"}]}
MILLION = 10**6
DOLLAR = 10**9


@pytest.fixture
async def runtime(users, orm, settings, monkeypatch):
    async def nothing(_runtime: Runtime) -> None: ...

    monkeypatch.setattr(Runtime, "tidy_up", nothing)
    settings.STACCATO = {
        **settings.STACCATO,
        "LLM_PRICES": "simulated:simulated=1/10,simulated:free=0/0",
        "LLM_MAX_TOKENS": "100",
        "RATELIMIT_HEADERS": "both",
    }
    async with Runtime.open() as opened:
        yield opened


@pytest.fixture
async def key(runtime):
    return await amake_key()


@pytest.fixture
async def client(runtime, key):
    async with in_process_client() as opened:
        opened.headers.update(bearer(key))
        yield opened


@pytest.fixture
def limit(runtime, key):
    async def make(unit, amount, window="", scope="key", **values):
        if scope == "key" and "api_key" not in values:
            values["api_key"] = await sync_to_async(rows_of(key).get)()
        place = {"scope": scope, "window": window, "zone": zone_of_noon(), **values}
        await Limit.objects.acreate(unit=unit, amount=amount, **place)
        await runtime.limits.refresh()

    return make


# unit, amount, window: status, slug, whether a client should ask again by itself
REFUSALS = {
    ("requests", 1, "minute"): (429, "rate-limited", "true"),
    ("requests", 1, "hour"): (429, "rate-limited", "false"),
    ("requests", 1, "month"): (429, "budget-exhausted", "false"),
    ("requests", 1, "ever"): (403, "budget-closed", "false"),
    ("requests", 0, "minute"): (403, "budget-closed", "false"),
    ("requests", 0, "day"): (403, "budget-closed", "false"),
    ("in_flight", 0, ""): (403, "budget-closed", "false"),
    ("tokens", 150, "day"): (429, "budget-exhausted", "false"),
    ("tokens", 100, "day"): (403, "request-exceeds-limit", "false"),
    ("usd", 0, "day"): (403, "budget-closed", "false"),
    ("usd", MILLION, "week"): (403, "request-exceeds-limit", "false"),
}


async def test_a_refusal_says_whether_and_when_to_ask_again(client, limit, runtime, subtests):
    for (unit, amount, window), (status, slug, again) in REFUSALS.items():
        await Limit.objects.all().adelete()
        await limit(unit, amount, window)
        with subtests.test(f"{amount} {unit} {window}"):
            answers = [await client.post(NATIVE, json={"input": "a"}) for _ in range(3)]
            answer = answers[-1]
            said = answer.json()
            assert (answer.status_code, said["type"].rpartition(":")[2]) == (status, slug), said
            assert answer.headers["x-should-retry"] == again
            assert ("retry-after" in answer.headers) == (status == 429)
            policies = [f"key-{unit}-{window}" if window else f"key-{unit}"]
            assert said["violated-policies"] == policies
            assert (said["scope"], said["unit"], said["window"]) == ("key", unit, window or None)
            assert said["limit"] == {"usd": {0: "0.00", MILLION: "0.001"}}.get(unit, {}).get(
                amount, amount
            )
            if slug == "request-exceeds-limit":  # a chat asks for fewer tokens
                continue
            for path in (CHAT, MESSAGES):
                vendors = await client.post(path, json=SAYS)
                assert vendors.status_code == status
                assert vendors.headers["x-should-retry"] == again
                assert vendors.json()["error"]["violated-policies"] == policies


async def test_a_model_without_a_price_is_refused_under_a_budget_in_dollars(
    client, limit, runtime, monkeypatch
):
    await limit("usd", 20 * DOLLAR, "month")
    monkeypatch.setattr(runtime.llm, "price", lambda *_asked: None)
    answer = await client.post(NATIVE, json={"input": "a"})
    assert (answer.status_code, answer.json()["type"][-14:]) == (403, "model-unpriced")
    assert not await GenerationLog.objects.aexists()


async def test_a_free_model_may_be_asked_on_a_spent_budget(client, limit, runtime, monkeypatch):
    await limit("usd", MILLION, "month")
    free = runtime.llm.price("simulated", "free")
    monkeypatch.setattr(runtime.llm, "price", lambda *_asked: free)
    assert (await client.post(NATIVE, json={"input": "a"})).status_code == 200


async def test_a_request_that_is_too_large_is_told_which_max_tokens_fits(client, limit):
    await limit("tokens", 100, "day")
    refused = await client.post(NATIVE, json={"input": "a"})
    fitting = refused.json()["max_tokens"]
    assert 0 < fitting < 100
    assert (
        await client.post(NATIVE, json={"input": "a", "max_tokens": fitting + 1})
    ).status_code == 403
    assert (await client.post(NATIVE, json={"input": "a", "max_tokens": fitting})).is_success


async def test_headers_say_what_is_left_and_only_where_there_are_limits(client, limit):
    assert "ratelimit" not in (await client.post(NATIVE, json={})).headers
    await limit("requests", 600, "minute")
    await limit("requests", 10**6, "day", scope="all")
    for path, body in ((NATIVE, {"input": "a"}), (CHAT, SAYS), (CHAT, {**SAYS, "stream": True})):
        answer = await client.post(path, json=body)
        assert answer.headers["ratelimit-policy"] == '"key-requests-minute";q=600;w=60'
        assert answer.headers["ratelimit"].startswith('"key-requests-minute";r=59')
        assert answer.headers["x-ratelimit-limit-requests"] == "600"
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")


async def test_a_caller_sees_no_amounts_but_its_own(client, limit):
    await limit("requests", 0, "day", scope="all")
    said = (await client.post(NATIVE, json={})).json()
    assert said["scope"] == "all"
    assert not {"limit", "used", "reserved"} & said.keys()
    assert (await client.get("/api/v1/limits")).json() == {"limits": []}


async def test_the_limits_of_a_key_can_be_read(client, limit):
    await limit("usd", 20 * DOLLAR, "month", zone="Europe/Berlin")
    await client.post(NATIVE, json={"input": "a"})
    (found,) = (await client.get("/api/v1/limits")).json()["limits"]
    assert (found["policy"], found["limit"], found["window"]) == ("key-usd-month", "20.00", "month")
    assert 0 < float(found["used"]) < 0.01
    assert "T00:00:00+0" in found["resets_at"]


async def test_a_shadow_limit_refuses_nothing(client, limit):
    await limit("requests", 0, "day", is_enforced=False)
    await limit("tokens", 1, "day", is_enforced=False)
    assert (await client.post(NATIVE, json={"input": "a"})).status_code == 200


async def test_a_replayed_answer_takes_nothing(client, limit):
    await limit("requests", 1, "month")
    again = {"Idempotency-Key": "one"}
    for _ in range(5):
        assert (await client.post(NATIVE, json={"input": "a"}, headers=again)).status_code == 200
    other = {"Idempotency-Key": "two"}
    assert (await client.post(NATIVE, json={"input": "a"}, headers=other)).status_code == 429
    assert await GenerationLog.objects.acount() == 1


async def test_the_strictest_of_several_binds_and_all_are_charged(client, limit):
    await limit("requests", 5, "month")
    await limit("requests", 2, "month", scope="user", user_id=2)
    await limit("requests", 9, "month", scope="all")
    assert [(await client.post(NATIVE, json={})).status_code for _ in range(3)] == [200, 200, 429]
    assert [each.settled async for each in LimitLease.objects.all()] == [2, 2, 2]


async def test_each_key_has_its_own_part_of_a_limit_for_each(client, limit):
    await limit("requests", 1, "day", api_key=None)
    other = bearer(await amake_key())
    asked = [{}, other, {}, other]
    answers = [await client.post(NATIVE, json={}, headers=headers) for headers in asked]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


async def test_one_at_once_is_free_again_wherever_its_call_is_cancelled(client, limit, runtime):
    await limit("in_flight", 1)
    await limit("tokens", 10**9, "day")
    for steps in range(80):
        path, body = (NATIVE, {"input": "a"}) if steps % 2 else (CHAT, {**SAYS, "stream": True})
        task = asyncio.create_task(client.post(path, json=body))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        calls = [call.task for call in runtime.admission.calls.values()]
        await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert (await client.post(path, json=body)).status_code == 200
    assert {block.reserved for block in runtime.limits.ledger._blocks.values()} == {0}


async def test_the_price_that_was_used_is_stored_with_the_row(client):
    await client.post(NATIVE, json={"input": "a"})
    assert (await GenerationLog.objects.aget()).price == "1/10/1/1"


async def test_a_process_that_is_nearly_full_admits_a_key_only_below_its_share(
    client, runtime, monkeypatch
):
    admission = runtime.admission
    monkeypatch.setattr(admission, "limit", 20)
    monkeypatch.setattr(admission._shares, "_limit", 20)
    flood, quiet = [
        await ApiKey.objects.acreate(name=name, prefix=name, scope="all")
        for name in ("flood", "quiet")
    ]

    def enter(key):
        place = admission.enter()
        try:
            admission.require_share(place, Grant(key.pk, None, weight=key.weight))
        except TooManyInFlight:
            place.leave()
            return None
        return place

    places = [enter(quiet)] + [enter(flood) for _ in range(20)]
    taken = [place for place in places if place is not None]
    assert len(taken) == 18, "the last tenth is for those below their share"
    assert enter(flood) is None
    more = enter(quiet)
    assert more is not None
    for place in (*taken, more):
        place.leave()
    assert admission._shares._places == {}
    assert enter(flood) is not None


async def test_without_limits_nothing_is_asked_of_postgresql_for_them(client, runtime):
    await client.post(NATIVE, json={"input": "a"})
    assert not runtime.limits.ledger._blocks
    assert not await LimitLease.objects.aexists()
