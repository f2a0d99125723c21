"""A client leaves in each of the three phases: one row tells so, and nothing leaks."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from tests.support.http import Wire
from tests.support.locks import locked, until_blocked
from tests.support.provider import Provider, says

GENERATE = "/api/v1/generate/1"


async def the_row(sql, service) -> asyncpg.Record:
    """The one row of the one request, once nothing is in flight."""
    pool = await service.until_pool(
        lambda now: now["requests_in_flight"] == 0 and now["checked_out"] == 0,
        "the end of the task",
    )
    assert pool["llm_calls_in_flight"] == 0
    rows = await sql.fetch(
        "SELECT * FROM generation_generationlog JOIN generation_generationbody USING (id)"
    )
    assert len(rows) == 1, f"one request leaves one row, not {len(rows)}"
    return rows[0]


async def test_leaving_in_phase_1_spends_nothing_and_is_recorded(here, llm, sql, database_url):
    async with here() as service:
        async with locked(database_url, "generation_profile"):
            exchange = await Wire.begin(service.port, "POST", GENERATE)
            await until_blocked(sql, "JOIN generation_profile")
            await exchange.leave()
            # The view is cancelled before the lock goes, or phase 2 would have begun.
            await service.until_pool(lambda now: now["requests_abandoned"] == 1, "the view's end")
        row = await the_row(sql, service)
        assert row["status"] == "cancelled"
        assert row["error_type"] == "client-left"
        assert llm.calls == 0, "the LLM was asked for somebody who had left"


async def test_leaving_in_phase_2_hangs_up_on_the_llm_and_is_recorded(here, llm, sql):
    llm.release.clear()
    async with here() as service:
        exchange = await Wire.begin(service.port, "POST", GENERATE)
        await llm.until(lambda: llm.waiting == 1, "the call")
        await exchange.leave()
        await llm.until(lambda: llm.hung_up == 1, "the upstream connection's end")
        row = await the_row(sql, service)
        assert row["status"] == "cancelled"
        assert row["provider"] == "anthropic"
        assert row["result"] == ""
        assert await sql.fetchval("SELECT count(*) FROM generation_usagelog") == 0


async def test_a_leavers_row_tells_what_had_been_tried(here, llm, sql):
    llm.release.clear()
    async with Provider(says(529, b"")).serve() as first:
        env = {
            "LLM_PROVIDER": "openai",
            "LLM_MODEL": "some-model",
            "OPENAI_BASE_URL": first.url,
            "LLM_FALLBACKS": "anthropic",
        }
        async with here(**env) as service:
            exchange = await Wire.begin(service.port, "POST", GENERATE)
            await llm.until(lambda: llm.waiting == 1, "the fallback's call")
            await exchange.leave()
            attempts = json.loads((await the_row(sql, service))["attempts"])
    assert [(each["provider"], each["status"], each["error"]) for each in attempts] == [
        ("openai", 529, "llm-overloaded"),
        ("anthropic", None, "cancelled"),
    ]


async def test_leaving_in_phase_3_loses_nothing_that_was_paid_for(here, llm, sql, database_url):
    async with here() as service:
        async with locked(database_url, "generation_generationlog"):
            exchange = await Wire.begin(service.port, "POST", GENERATE)
            await until_blocked(sql, "WITH rows AS")
            await exchange.leave()
            await service.until_pool(lambda now: now["requests_abandoned"] == 1, "the view's end")
        row = await the_row(sql, service)
        assert row["status"] == "succeeded"
        assert row["result"] == "Hello."
        assert row["total_tokens"] == 30


@pytest.mark.parametrize("count", [200])
async def test_a_burst_of_leavers_opens_no_new_connections(here, llm, sql, count):
    llm.release.clear()
    async with here() as service:
        exchanges = await asyncio.gather(
            *(Wire.begin(service.port, "POST", GENERATE) for _ in range(count))
        )
        await llm.until(lambda: llm.waiting == count, "all of them in the LLM")
        before = (await service.pool())["peak_open"]
        await asyncio.gather(*(exchange.leave() for exchange in exchanges))
        await llm.until(lambda: llm.hung_up == count, "all upstream connections' end")
        pool = await service.until_pool(
            lambda now: now["requests_in_flight"] == now["checked_out"] == 0, "the rows"
        )
        assert pool["peak_open"] - before <= 4
        rows = await sql.fetch("SELECT status, count(*) FROM generation_generationlog GROUP BY 1")
        assert {row["status"]: row["count"] for row in rows} == {"cancelled": count}

        llm.release.set()
        healthy = await Wire.begin(service.port, "POST", GENERATE)
        assert (await healthy.answer()).status == 200
