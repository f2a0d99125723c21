"""The promises about processes: together, killed, and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

from asgiref.sync import sync_to_async

from generation import standing
from generation.models import Limit
from tests.support import http
from tests.support.waiting import HANG_S
from tests.support.windows import zone_of_noon

# What the fake LLM's answer of 20 tokens costs is what is reserved for one of at most 20.
PRICED = {"LLM_PRICES": "anthropic=0/1000", "LLM_MAX_TOKENS": "20", "LLM_MAX_ATTEMPTS": "1"}
CENT = 10_000_000  # billionths; a call costs two


WAIT = "budget-reserved"


def kind_of(answer: http.Answer) -> str:
    return "" if answer.status == 200 else answer.json()["type"].rpartition(":")[2]


async def test_a_budget_for_fifty_calls_lets_fifty_of_two_hundred_through(serve, llm, orm):
    await Limit.objects.acreate(
        scope="all", unit="usd", amount=100 * CENT, window="month", zone=zone_of_noon()
    )
    async with serve(**PRICED) as one, serve(**PRICED) as two:
        ports = [(one, two)[number % 2].port for number in range(200)]
        statuses: Counter[str] = Counter()
        async with asyncio.timeout(HANG_S):
            while ports:
                answers = await asyncio.gather(*map(http.generate, ports))
                found = [kind_of(answer) for answer in answers]
                statuses += Counter(found)
                # What is left is in the other process, which gives it back: they may come again.
                ports = [port for port, kind in zip(ports, found, strict=True) if kind == WAIT]
        del statuses[WAIT]
        assert llm.calls == 50
        assert statuses == {"": 50, "budget-exhausted": 150}
        late = await http.generate(one.port)
        assert (late.status, late.json()["type"]) == (429, "urn:staccato:problem:budget-exhausted")
        assert late.headers["x-should-retry"] == "false"
        assert int(late.headers["retry-after"]) > 60
    now = (await sync_to_async(standing.standings)([await Limit.objects.aget()]))[0]
    assert (now.used, now.committed) == (100 * CENT, 100 * CENT)


async def test_after_a_kill_reconcile_takes_what_the_rows_account_for(serve, llm, sql, orm):
    await Limit.objects.acreate(
        scope="all", unit="usd", amount=100 * CENT, window="month", zone=zone_of_noon()
    )
    async with serve(**PRICED) as service:
        for _ in range(3):
            assert (await http.generate(service.port)).status == 200
        llm.release.clear()
        lost = [asyncio.create_task(http.generate(service.port)) for _ in range(2)]
        await llm.until(lambda: llm.waiting == 2, "two calls in the LLM")
        service.process.kill()
        await service.ended()
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
    limit = await Limit.objects.aget()
    found = (await sync_to_async(standing.standings)([limit]))[0]
    assert found.used == 6 * CENT
    assert found.committed >= 10 * CENT, "what was killed stays reserved"
    await sql.execute("UPDATE generation_limitholder SET alive_until = now() - interval '1 s'")
    differences = await sync_to_async(standing.differences)()
    assert [each.of_rows for each in differences] == [6 * CENT]
    await sync_to_async(standing.reconcile)(differences)
    assert await sync_to_async(standing.differences)() == []
    found = (await sync_to_async(standing.standings)([limit]))[0]
    charged = await sql.fetchval(
        "SELECT sum((charge->>'amount')::bigint) FROM generation_generationlog,"
        " jsonb_array_elements(charges) AS charge"
    )
    assert found.used == found.committed == charged == 6 * CENT


async def stopped_empty_handed(pid: int) -> None:
    """Stop it while it holds no part that it could spend after: its own clock is not moved."""
    async with asyncio.timeout(HANG_S):
        while True:
            os.kill(pid, signal.SIGSTOP)
            (now,) = await sync_to_async(standing.standings)([await Limit.objects.aget()])
            if now.committed == now.used:
                return
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.1)


async def test_a_process_that_was_stopped_for_longer_than_its_lease_overspends_nothing(
    serve, llm, sql, orm
):
    """Its lease is given to others by then; it asks before it takes more."""
    await Limit.objects.acreate(
        scope="all", unit="usd", amount=20 * CENT, window="month", zone=zone_of_noon()
    )
    # The lease is all of these and 15 s; PostgreSQL's clock is moved instead of waiting for it.
    async with serve(**PRICED) as sleeper, serve(**PRICED) as other:
        assert (await http.generate(sleeper.port)).status == 200
        await stopped_empty_handed(sleeper.process.pid)
        try:
            await sql.execute(
                "UPDATE generation_limitholder SET alive_until = now() - interval '1 s'"
            )
            await sync_to_async(standing.reconcile)(await sync_to_async(standing.differences)())
            answers = await asyncio.gather(*(http.generate(other.port) for _ in range(20)))
        finally:
            os.kill(sleeper.process.pid, signal.SIGCONT)
        more = await asyncio.gather(*(http.generate(sleeper.port) for _ in range(20)))
    paid = [answer.status for answer in (*answers, *more)].count(200)
    assert paid == 9
    assert llm.calls == 10
