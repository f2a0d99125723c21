"""The live page: who sees it, and what it costs that many tabs ask for the pool's figures."""

from __future__ import annotations

import asyncio
import itertools
import re
import time

import pytest
from django.contrib.auth import get_user_model

from generation import conf
from generation.telemetry.watching import ANSWERS_PER_S, RAREST_S, Recent, Watchers
from tests.support.admin import session_of
from tests.support.problems import problem

PAGE, POOL, HISTORY = "/api/v1/live", "/api/v1/pool", "/api/v1/pool/history"
FROM_A_TAB = {"Cache-Control": "max-age=1"}


@pytest.fixture
def access(runtime, settings):
    """Set who sees the pool, as a restart would."""

    def change(value: str) -> None:
        runtime.settings = conf.parse({**settings.STACCATO, "POOL_ACCESS": value})

    return change


def ticket_in(html: str) -> dict[str, str]:
    found = re.search(r'data-ticket="([^"]*)"', html)
    assert found, "the page has no place for a ticket"
    return {"Staccato-Ticket": found[1]}


async def test_where_the_pool_is_open_so_is_the_page(client):
    answer = await client.get(PAGE)
    assert answer.status_code == 200
    assert 'data-ticket=""' in answer.text
    assert "content-security-policy" in answer.headers


async def test_where_the_pool_is_off_there_is_no_page(client, access):
    access("off")
    for path in (PAGE, HISTORY):
        assert problem(await client.get(path)) == (404, "not-found")


async def test_the_history_has_what_was_in_flight_before_somebody_looked(client, runtime):
    # Each look has a second of its own.
    runtime.history._clock = itertools.count(int(time.time()) + 10).__next__
    calls = [asyncio.create_task(client.post("/api/v1/generate/1")) for _ in range(3)]
    while len(runtime.admission.calls) < 3:
        await asyncio.sleep(0)
    await runtime.history.note()
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    await runtime.history.note()
    found = (await client.get(HISTORY)).json()
    assert max(found["requests_in_flight"]) == 3
    assert found["requests_in_flight"][-1] == 0
    assert len(found["requests_in_flight"]) == len(found["checked_out"]) <= 120


async def test_where_the_pool_is_for_staff_others_are_sent_to_the_login(client, access):
    access("staff")
    stranger = await client.get(PAGE)
    assert (stranger.status_code, stranger.headers["location"]) == (
        302,
        f"/admin/login/?next={PAGE}",
    )
    user = await get_user_model().objects.aget(id=1)
    assert problem(await client.get(PAGE, headers=await session_of(user))) == (403, "staff-only")


async def test_a_hundred_tabs_of_the_staff_cause_no_statement_and_enter_no_thread(
    client, runtime, access, request
):
    access("staff")
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    html = (await client.get(PAGE, headers=await session_of(staff))).text
    looks = []
    snapshots = runtime.siblings.snapshots

    async def counted():
        looks.append(1)
        return await snapshots()

    runtime.siblings.snapshots = counted
    thread_entries = request.getfixturevalue("thread_entries")
    held = runtime.snapshot().holds.count
    ask = FROM_A_TAB | ticket_in(html)
    begun = await asyncio.gather(*(client.get(HISTORY, headers=ask) for _ in range(100)))
    assert {answer.status_code for answer in begun} == {200}
    assert len({answer.content for answer in begun}) == 1, "they share one look at it, too"
    answers = await asyncio.gather(*(client.get(POOL, headers=ask) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert thread_entries == [], "a tab's question entered a thread"
    assert runtime.snapshot().holds.count == held, "a tab's question took a connection"
    assert len(looks) == 1, "a hundred tabs share one look at the figures"
    waits = [int(answer.headers["cache-control"].rpartition("=")[2]) for answer in answers]
    assert (waits[0], waits[-1]) == (1, 100 / ANSWERS_PER_S), "the more watch, the less often"
    answer = await client.get(POOL, headers=ticket_in(html))
    assert "cache-control" not in answer.headers
    assert len(looks) == 2, "who does not accept a page that is a second old gets a new one"


@pytest.mark.parametrize(("tabs", "wait_s"), [(1, 1), (25, 1), (38, 2), (100, 4), (5000, RAREST_S)])
def test_however_many_watch_they_ask_as_often_as_a_few(tabs, wait_s):
    now = 0.0
    watchers = Watchers(lambda: now)
    due = dict.fromkeys(range(tabs), 0.0)
    asked = 0
    for tenth in range(1200):
        now = tenth / 10
        for tab in (tab for tab, moment in due.items() if moment <= now):
            due[tab] = now + watchers.wait_s()
            asked += now >= 60  # when each has heard of the others
    assert asked / 60 <= max(ANSWERS_PER_S, tabs / RAREST_S) * 1.5
    now += 2 * RAREST_S
    assert watchers.wait_s() == 1, "those who have left count no more"
    crowd = Watchers(lambda: 0.0)
    assert [crowd.wait_s() for _ in range(tabs)][-1] == wait_s


async def test_what_is_shared_is_no_failure_and_does_not_end_with_one_who_leaves():
    begun: list[asyncio.Event] = []

    async def take() -> int:
        begun.append(asyncio.Event())
        await begun[-1].wait()
        if len(begun) == 1:
            raise OSError("the first look fails")
        return len(begun)

    recent = Recent(take)
    failing = [asyncio.create_task(recent.within(60)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    begun[0].set()
    assert [type(each) for each in await asyncio.gather(*failing, return_exceptions=True)] == [
        OSError,
        OSError,
    ]
    leaving, staying = (asyncio.create_task(recent.within(60)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    begun[1].set()
    assert await staying == await recent.within(60) == 2
