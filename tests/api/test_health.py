"""/livez, /readyz, /metrics, /api/v1/pool: what they say, and to whom."""

from __future__ import annotations

import asyncio

import pytest
from django.contrib.auth import get_user_model

from generation import conf
from generation.errors import DatabaseUnavailable
from generation.runtime import probe
from tests.support.admin import session_of
from tests.support.waiting import HANG_S

PAGES = {"/api/v1/pool": "POOL_ACCESS", "/metrics": "METRICS_ACCESS"}


@pytest.fixture
def access(runtime, settings):
    """Set who may see a page, as a restart would."""

    def change(page: str, value: str) -> None:
        runtime.settings = conf.parse({**settings.STACCATO, PAGES[page]: value})

    return change


async def test_ready_means_open_with_a_migrated_database(client):
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "draining": False,
        "database": "ok",
        "journal": "ok",
        "pending_migrations": [],
        "requests_in_flight": 0,
    }


async def test_without_a_database_it_is_alive_but_not_ready(client, runtime, monkeypatch):
    async def gone():
        raise DatabaseUnavailable("the database can't be reached")

    monkeypatch.setattr(runtime.store, "ping", gone)
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["database"] == "the database can't be reached"
    assert (await client.get("/livez")).json() == {"alive": True}


async def test_it_is_ready_once_the_migrations_that_it_lacked_at_its_start_are_applied(
    client, runtime, monkeypatch
):
    monkeypatch.setattr(probe, "KEPT_S", 0.0)
    lacked = ["generation.0001_initial", "generation.9999_not_applied"]
    runtime.database_probe.pending_migrations = lacked
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["pending_migrations"] == lacked[1:]
    runtime.database_probe.pending_migrations = lacked[:1]
    assert (await client.get("/readyz")).json()["ready"]


async def test_asking_often_asks_the_database_once(client, runtime, monkeypatch):
    pings = []
    ping = runtime.store.ping

    async def counted():
        pings.append(1)
        await ping()

    monkeypatch.setattr(runtime.store, "ping", counted)
    monkeypatch.setattr(probe, "KEPT_S", HANG_S)  # for a busy machine
    for _ in range(20):
        await client.get("/readyz")
    assert len(pings) <= 1


async def test_asking_at_once_asks_the_database_once(client, runtime, monkeypatch):
    pings = []
    ping = runtime.store.ping
    may_answer = asyncio.Event()

    async def counted():
        pings.append(1)
        await may_answer.wait()
        await ping()

    monkeypatch.setattr(runtime.store, "ping", counted)
    asking = [asyncio.create_task(client.get("/readyz")) for _ in range(200)]
    while not pings:
        await asyncio.sleep(0)
    asking.pop(0).cancel()  # the one that began may leave
    await asyncio.sleep(0)
    may_answer.set()
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert len(pings) == 1


async def test_the_pool_page_shows_the_pool_and_the_process(client):
    await client.post("/api/v1/generate/1")
    pool = (await client.get("/api/v1/pool")).json()
    assert pool["size"] == 10
    assert pool["max_overflow"] == 20
    assert pool["open"] == pool["checked_in"] + pool["checked_out"] >= 1
    assert pool["peak_checked_out"] >= 1
    assert set(pool["holds"]) == {"count", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms"}
    assert pool["process"] > 0


async def test_the_metrics_show_outcomes_pool_and_llm(client):
    await client.post("/api/v1/generate/1")
    await client.post("/api/v1/generate/99")
    text = (await client.get("/metrics")).text
    for name in (
        'staccato_requests_total{outcome="succeeded"}',
        'staccato_requests_total{outcome="unknown-user"}',
        "staccato_llm_seconds_count",
        "staccato_overhead_seconds_count",
        "staccato_db_connections_checked_out ",  # a usage log may be on its way
        "staccato_db_connection_hold_seconds_bucket",
        "staccato_guard_violations_total",
    ):
        assert name in text


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_can_be_switched_off(client, access, page):
    access(page, "off")
    answer = await client.get(page)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_can_be_for_staff_only(client, access, page):
    access(page, "staff")
    refused = await client.get(page)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    assert (await client.get(page, headers=await session_of(staff))).status_code == 200
    plain = await get_user_model().objects.aget(id=1)
    assert (await client.get(page, headers=await session_of(plain))).status_code == 403
