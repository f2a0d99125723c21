"""What a process remembers of keys: what it costs, and for how long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from generation.api_keys import cache as module
from generation.api_keys import tokens
from generation.api_keys.cache import KEPT_S, REFRESH_S, Known, RecentKeys
from generation.errors import DatabaseUnavailable, Unauthorized
from generation.models import ApiKey, Limit
from generation.runtime.process import Runtime
from tests.support import http
from tests.support.keys import Clock, amake_key, bearer, cache_of, command, rows_of
from tests.support.problems import problem
from tests.support.waiting import until

Scope = ApiKey.Scope
GENERATE = "/api/v1/generate/1"


# --- what it costs --------------------------------------------------------------------------------


async def test_a_key_that_is_known_costs_no_statement_and_no_thread(
    closed, runtime, thread_entries, django_connections
):  # fmt: skip
    key = await amake_key()
    await closed.post(GENERATE, headers=bearer(key))
    lookups = count_lookups(runtime)
    thread_entries.clear()
    django_connections.clear()
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert answer.status_code == 200
    assert lookups == []
    assert thread_entries == [], "the hot path hopped to a thread"
    assert django_connections == [], "the hot path opened a connection of the Django ORM"


async def test_many_callers_with_new_keys_share_their_lookups(closed, runtime):
    mine = [await amake_key() for _ in range(40)]
    lookups = count_lookups(runtime)
    answers = await asyncio.gather(
        *(closed.post(GENERATE, headers=bearer(key)) for key in mine * 5)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert sum(len(batch) for batch in lookups) == 40, "a key was looked up twice"
    assert len(lookups) < 20


async def test_an_unknown_key_is_looked_up_once(closed, runtime):
    lookups = count_lookups(runtime)
    headers = bearer(f"stc_{'0' * 12}_{'A' * 43}")
    for _ in range(5):
        assert (await closed.post(GENERATE, headers=headers)).status_code == 401
    assert len(lookups) == 1


def count_lookups(opened: Runtime) -> list:
    """What is asked of the database from now on."""
    asked: list = []
    read = opened.database.read

    async def recorded(statement, parameters=None):
        if parameters and "prefixes" in parameters:
            asked.append(list(parameters["prefixes"]))
        return await read(statement, parameters)

    opened.database.read = recorded  # type: ignore[method-assign]  # it only looks at what it passes on
    return asked


# --- how long it is remembered --------------------------------------------------------------------


async def test_a_revoked_key_works_for_half_a_minute_at_most(cache, clock):
    key = await amake_key()
    await cache.recognise(key)
    await rows_of(key).aupdate(revoked_at=datetime.now(UTC))
    clock.now += KEPT_S - 11
    await cache.recognise(key)  # from memory
    clock.now += 11
    with pytest.raises(Unauthorized):
        await cache.recognise(key)


async def test_a_key_in_use_is_refreshed_while_no_caller_waits(cache, clock):
    key = await amake_key()
    await cache.recognise(key)
    clock.now += REFRESH_S + 1
    await rows_of(key).aupdate(revoked_at=datetime.now(UTC))
    await cache.recognise(key)  # answered from memory, and looked up again meanwhile
    (refresh,) = cache._lookups.values()
    await asyncio.wait([refresh])
    with pytest.raises(Unauthorized):
        await cache.recognise(key)


async def test_a_key_that_was_unknown_works_half_a_minute_later(cache, clock):
    key = await amake_key(revoked_at=datetime.now(UTC))
    with pytest.raises(Unauthorized):
        await cache.recognise(key)
    await rows_of(key).aupdate(revoked_at=None)
    clock.now += KEPT_S
    assert (await cache.recognise(key)).users is None


async def test_a_key_expires_at_once_though_it_is_remembered(cache, clock):
    key = await amake_key(expires_at=datetime.now(UTC) + timedelta(hours=1))
    await cache.recognise(key)
    prefix = tokens.parse_prefix(key)
    known, at = cache._known._entries[prefix]
    soon = Known(known.digest, datetime.now(UTC), known.grant)
    cache._known._entries[prefix] = (soon, at)
    with pytest.raises(Unauthorized, match="expired"):
        await cache.recognise(key)


def test_what_is_remembered_is_bounded():
    recent = RecentKeys(KEPT_S, 3, Clock())
    for number in range(10):
        recent.put(str(number), None, Clock.now)
    assert len(recent) == 3
    assert recent.get("9") is not None
    assert recent.get("0") is None


async def test_guesses_push_out_no_key_in_use(runtime):
    cache = cache_of(runtime, size=5)
    key = await amake_key()
    await cache.recognise(key)
    guesses = [f"stc_{number:012x}_{'A' * 43}" for number in range(50)]
    results = await asyncio.gather(*map(cache.recognise, guesses), return_exceptions=True)
    assert {type(result) for result in results} == {Unauthorized}
    assert len(cache._unknown) == 5
    assert len(cache._known) == 1


# --- its limits -----------------------------------------------------------------------------------


async def test_a_new_key_has_its_limits_from_its_first_call(closed, runtime, subtests):
    """These are set long before the process reads them by itself."""
    for whose in ("the key's", "its user's", "each key's", "each user's", "all"):
        with subtests.test(whose):
            key = await amake_key()
            owner: dict[str, Any] = {"scope": whose.removeprefix("each ").removesuffix("'s")}
            if whose == "the key's":
                owner = {"scope": "key", "api_key": await rows_of(key).aget()}
            elif whose == "its user's":
                owner = {"scope": "user", "user_id": 1}
            limit = await Limit.objects.acreate(unit="requests", amount=0, window="day", **owner)
            answer = await closed.post(GENERATE, headers=bearer(key))
            await limit.adelete()
            assert answer.status_code == 403, "the key worked without its limits"
            assert problem(answer) == (403, "budget-closed")


async def test_limits_are_read_once_for_each_new_key(runtime, clock):
    reads = []

    async def read_limits() -> None:
        reads.append(clock.now)

    cache = cache_of(runtime, read_limits=read_limits, clock=clock)
    key = await amake_key()
    for _ in range(3):
        await cache.recognise(key)
        clock.now += KEPT_S
    with pytest.raises(Unauthorized):
        await cache.recognise(tokens.make("pepper").text)
    assert len(reads) == 1, "a key that was seen before, or a guess, costs another statement"


async def test_no_call_of_a_new_key_overtakes_the_reading_of_its_limits(runtime, clock):
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def read_limits() -> None:
        begun.set()
        await may_end.wait()

    cache = cache_of(runtime, read_limits=read_limits, clock=clock)
    key = await amake_key()
    first = asyncio.create_task(cache.recognise(key))
    await until(begun.is_set, "a lookup reads the limits")
    second = asyncio.create_task(cache.recognise(key))
    await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    may_end.set()
    await asyncio.gather(first, second)


async def test_a_new_key_whose_limits_cannot_be_read_gets_503(closed, runtime, monkeypatch):
    async def gone():
        raise DatabaseUnavailable("the database can't be reached", retry_after=1)

    key = await amake_key()
    with monkeypatch.context() as patch:
        patch.setattr(runtime.store.limits, "version", gone)
        for _ in range(2):
            answer = await closed.post(GENERATE, headers=bearer(key))
            assert problem(answer) == (503, "database-unavailable")
            assert answer.headers["retry-after"]
    assert (await closed.post(GENERATE, headers=bearer(key))).status_code == 200


async def test_callers_share_a_reading_of_the_limits(runtime, monkeypatch):
    begun, version = [], runtime.store.limits.version

    async def counted():
        begun.append(None)
        return await version()

    monkeypatch.setattr(runtime.store.limits, "version", counted)
    await asyncio.gather(*(runtime.limits.refresh() for _ in range(40)))
    # One may have begun before the others had asked, and one is of the process's own pace.
    assert len(begun) <= 3


# --- without a database ---------------------------------------------------------------------------


async def test_without_a_database_a_new_key_gets_503_and_a_known_one_is_still_known(
    closed, runtime, monkeypatch
):
    known, new = await amake_key(), await amake_key()
    await runtime.keys.recognise(known)

    read = runtime.database.read

    async def gone(statement, parameters=None):
        if parameters and "prefixes" in parameters:
            raise DatabaseUnavailable("the database can't be reached", retry_after=1)
        return await read(statement, parameters)

    monkeypatch.setattr(runtime.database, "read", gone)
    answer = await closed.post(GENERATE, headers=bearer(new))
    assert problem(answer) == (503, "database-unavailable")
    assert answer.headers["retry-after"]
    assert (await closed.post(GENERATE, headers=bearer(known))).status_code == 200
    answer = await closed.get("/metrics", headers=bearer(new))
    assert problem(answer) == (503, "database-unavailable")


async def test_a_frozen_database_is_waited_for_within_its_bound(runtime, cache, monkeypatch):
    async def frozen(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(runtime.database, "read", frozen)
    monkeypatch.setattr(runtime.database, "_wait_limit_s", 0.05)
    with pytest.raises(DatabaseUnavailable):
        await cache.recognise(tokens.make("pepper").text)


# --- several processes ----------------------------------------------------------------------------


async def test_revocation_and_expiry_reach_every_process_within_half_a_minute(serve, orm):
    """The processes' half a minute is short here; that it is one is shown by the clock above."""
    revoked, expiring, kept = await amake_key(), await amake_key(), await amake_key()
    paced = {
        "application": "tests.support.paced:application",
        "KEPT_S": "3",
        "STACCATO_API_KEYS_REQUIRED": "1",
    }
    async with serve(**paced) as one, serve(**paced) as other:
        ports = (one.port, other.port)

        async def statuses(key: str) -> list[int]:
            answers = [await http.generate(port, headers=bearer(key).items()) for port in ports]
            return [answer.status for answer in answers]

        for key in (revoked, expiring, kept):
            assert await statuses(key) == [200, 200]
        await rows_of(expiring).aupdate(expires_at=datetime.now(UTC))
        await sync_to_async(command)("revoke", revoked)

        async def are_refused() -> bool:
            return [await statuses(key) for key in (revoked, expiring)] == [[401, 401]] * 2

        await until(are_refused, "keys that were taken away work no more")
        assert await statuses(kept) == [200, 200]


def test_what_is_remembered_by_default_is_bounded_in_number_and_time():
    assert module.SIZE <= 10_000
    assert module.REFRESH_S < module.KEPT_S <= 30
    assert module.RECORD_USE_S >= 60
