"""The rollups equal the log, whatever happens to the process that computes them."""

from __future__ import annotations

import asyncio
import random
import signal
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connection
from prometheus_client import REGISTRY

from generation.errors import DatabaseUnavailable
from generation.models import GenerationLog
from generation.partitions.intervals import WEEK, interval_at
from generation.rollups.buckets import floor
from generation.rollups.upkeep import BEGINNING
from tests.support.admin import make_id
from tests.support.forked import Process
from tests.support.locks import locked, until_blocked
from tests.support.partitions import make_room
from tests.support.rollups import NOW, TABLES, catch_up, computed, keeping, stored
from tests.support.service import environment

TARGETS = [("anthropic", "claude"), ("openai", "gpt"), ("openai", "gpt-mini")]
ERRORS = {"failed": ["llm-overloaded", "llm-refused"], "timed_out": ["llm-timeout"]}
SINCE_STORED = "UPDATE generation_generationlog SET stored_at = stored_at - interval '3 hours'"
BACK_TO = "SELECT back_to FROM generation_maintenance WHERE task = 'rollups'"


def make_logs(count: int, *, days: float, seed: int, days_ago: float = 0) -> list[GenerationLog]:
    """Rows of all kinds, over so many days."""
    draw = random.Random(seed)  # to be repeated
    logs = []
    for _ in range(count):
        moment = datetime.now(UTC) - timedelta(days=days_ago + draw.random() * days)
        target = draw.choice(TARGETS)
        status = draw.choice(["succeeded"] * 4 + [*ERRORS])
        attempts = [
            {"provider": provider, "model": model, "status": draw.choice([200, 429, None])}
            for provider, model in [draw.choice(TARGETS), target][draw.randrange(3) :]
        ]
        has_usage = draw.random() < 0.8
        logs.append(
            GenerationLog(
                id=make_id(moment + timedelta(seconds=1)),
                user_id=draw.choice([1, 2, 2**31 - 1, None]),
                api_key_id=draw.choice([1, 2, None]),
                provider=target[0],
                model=target[1],
                status=status,
                error_type=draw.choice(ERRORS[status]) if status in ERRORS else "",
                attempts=attempts,
                input_tokens=draw.choice([0, 7, 2**62]) if has_usage else None,
                output_tokens=draw.randrange(1000) if has_usage else None,
                total_tokens=draw.choice([None, 8, 2**62]),
                stop_reason=draw.choice(["", "end_turn", "refusal"]),
                cache_read_tokens=draw.choice([None, 5]),
                cache_write_tokens=draw.choice([None, 3]),
                cost_usd=Decimal(draw.randrange(10**12)) / 10**9
                if has_usage and draw.random() < 0.8
                else None,
                latency_ms=draw.choice([0, 1, 15, 16, 17])
                or min(round(draw.lognormvariate(7, 2)), 2**31 - 1),
                llm_latency_ms=draw.randrange(70_000_000),
                request_id="r",
                created_at=moment,
            )
        )
    return logs


@sync_to_async
def save(logs: list[GenerationLog]) -> None:
    with connection.cursor() as cursor:
        make_room(cursor, *(log.created_at for log in logs))
    GenerationLog.objects.bulk_create(logs, ignore_conflicts=True)  # as the store inserts


@sync_to_async
def require_equal() -> None:
    for table, found, wanted in zip(TABLES, stored(), computed(), strict=True):
        assert found, f"{table.__name__} is empty: nothing was computed"
        assert found == wanted, f"{table.__name__} differs from the log"


@pytest.fixture
def log(sql, orm):
    return sql


async def test_rollups_equal_the_log_also_after_late_rows_and_repeated_ones(log):
    logs = make_logs(200, days=3, seed=1)
    await save(logs)
    await catch_up()
    await require_equal()
    await save(make_logs(50, days=8, seed=2))  # e.g. from a journal
    await save(logs[:50])  # twice
    await catch_up()
    await require_equal()


async def test_a_late_row_is_found_by_when_it_was_stored(log):
    """Also one that was committed long after its `stored_at`, though no later than a statement may
    take."""
    await save(make_logs(20, days=0.1, seed=3))
    await catch_up()
    await save(make_logs(10, days=3, seed=4))
    await log.execute(
        "UPDATE generation_generationlog SET stored_at = stored_at - interval '50 seconds'"
    )
    await catch_up()
    await require_equal()


async def test_what_was_there_before_is_computed_in_steps_that_go_on_where_they_ended(log):
    await save(make_logs(100, days=3, seed=5))
    await log.execute(SINCE_STORED)
    passes = 0
    async with keeping() as rollups:
        while not await rollups.follow(every=NOW, limit_s=0.001):
            passes += 1
            assert passes < 100, "a pass makes no progress"
            assert await log.fetchval(BACK_TO) > BEGINNING, "pages say that more will come"
    assert passes > 1, "one pass took all"
    assert await log.fetchval(BACK_TO) == BEGINNING, "pages say for ever that more will come"
    await require_equal()


async def test_a_process_killed_in_a_pass_leaves_rollups_that_the_next_one_makes_equal(
    log, database_url, tmp_path
):
    """kill -9 between the statements of a transaction, of which some have run."""
    await save(make_logs(50, days=1, seed=6))
    async with locked(database_url, "generation_spender"):
        process = Process(
            "manage.py",
            "staccato_maintain",
            env=environment(database_url),
            output=tmp_path / "output",
        )
        await until_blocked(log, "generation_spender")
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert await log.fetchval("SELECT count(*) FROM generation_rollup") == 0, "all or nothing"
    await save(make_logs(50, days=1, seed=7))
    await log.execute("UPDATE generation_maintenance SET leased_until = now()")  # two minutes later
    await catch_up()
    await require_equal()


async def test_one_process_at_a_time_computes_and_one_that_lost_its_lease_writes_nothing(
    log, database_url
):
    await save(make_logs(50, days=1, seed=8))
    async with keeping() as one, keeping() as other:
        async with locked(database_url, "generation_spender"):
            work = asyncio.create_task(one.follow(every=NOW, limit_s=60))
            await until_blocked(log, "generation_spender")
            assert not await other.follow(every=NOW, limit_s=60), "another is at it"
            await log.execute("UPDATE generation_maintenance SET holder = gen_random_uuid()")
        with pytest.raises(DatabaseUnavailable):
            await work
        assert await log.fetchval("SELECT count(*) FROM generation_rollup") == 0
        await log.execute("UPDATE generation_maintenance SET leased_until = now()")
        assert await other.follow(every=NOW, limit_s=60)
        assert not await one.follow(every=timedelta(hours=1), limit_s=60), "it is not due"
    await require_equal()


async def test_what_a_dropped_partition_had_stays_even_when_all_is_computed_again(log):
    old = make_logs(50, days=6, days_ago=25, seed=9)
    await save(old)
    await save(make_logs(50, days=1, seed=10))
    await catch_up()
    before = await sync_to_async(stored)()
    weeks = {interval_at(each.created_at, WEEK).start for each in old}
    rest = await log.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'generation_generationlog'::regclass AND relname < $1",
        f"generation_generationlog_{max(weeks):%Y%m%d}x",
    )
    for (name,) in rest:
        await log.execute(f"DROP TABLE {name}")
    try:
        await log.execute("DELETE FROM generation_maintenance")  # as if nothing had been computed
        await catch_up()
        assert await sync_to_async(stored)() == before
    finally:  # other tests have rows in them
        days = [datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC) for (name,) in rest]
        await sync_to_async(lambda: make_room(connection.cursor(), *days))()


async def test_a_pass_writes_only_the_rows_that_changed(log):
    await save(make_logs(100, days=1, seed=11))
    await catch_up()
    versions = "SELECT xmin FROM generation_rollup UNION SELECT xmin FROM generation_spend"
    before = set(await log.fetch(versions))
    await log.execute("UPDATE generation_generationlog SET stored_at = now()")
    await catch_up()
    assert set(await log.fetch(versions)) == before


async def test_the_lag_is_the_time_since_the_rows_that_are_not_in_the_rollups_yet(log):
    def shown() -> float:
        return REGISTRY.get_sample_value(
            "staccato_rollup_lag_seconds", {"table": "generation_rollup"}
        )

    async with keeping() as rollups:
        assert await rollups.measure() is None, "there was no pass"
        await rollups.follow(every=NOW, limit_s=60)
        assert shown() < 60
        await log.execute("UPDATE generation_maintenance SET watermark = now() - interval '1 hour'")
        assert await rollups.measure() > timedelta(minutes=59)
        assert shown() > 3500


INSERT = (
    "INSERT INTO generation_rollup VALUES ($1, $2, 'p', 'm', 'succeeded', '', 200, $2,"
    " $2, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, '{}', 0, 0, '{}', 1)"
)


async def test_the_days_of_a_week_stay_as_long_as_the_log_may_get_rows_of_it(log, settings):
    days = {"LOG_RETENTION_DAYS": 400, "BODY_RETENTION_DAYS": 400}
    settings.STACCATO = {**settings.STACCATO, **days}
    now = floor(datetime.now(UTC), 1440)
    for age in (407, 409):
        await log.execute(INSERT, 1440, now - timedelta(days=age))
    async with keeping() as rollups:
        assert await rollups.purge() == 1
    left = await log.fetchval("SELECT bucket FROM generation_rollup")
    assert now - left == timedelta(days=407)


async def test_rollups_are_deleted_when_their_retention_is_over(log, settings):
    days = {"LOG_RETENTION_DAYS": 10, "BODY_RETENTION_DAYS": 10, "ROLLUP_RETENTION_DAYS": 300}
    settings.STACCATO = {**settings.STACCATO, **days}
    now = floor(datetime.now(UTC), 5)
    for minutes, ages in {5: (1, 180, 200), 10_080: (180, 200, 299, 310)}.items():
        for age in ages:
            await log.execute(INSERT, minutes, now - timedelta(days=age))
    async with keeping() as rollups:
        assert await rollups.purge(rows=1) == 2
    left = await log.fetch("SELECT minutes, bucket FROM generation_rollup ORDER BY 1, 2 DESC")
    assert [(row[0], (now - row[1]).days) for row in left] == [
        (5, 1),
        (5, 180),
        (10_080, 180),
        (10_080, 200),
        (10_080, 299),
    ]


def test_the_command_computes_all_that_is_lacking(committed, capsys):
    GenerationLog.objects.bulk_create(make_logs(50, days=1, seed=12))
    call_command("staccato_maintain")
    assert "rollups" in capsys.readouterr().out
    found, wanted = stored(), computed()
    assert found == wanted
