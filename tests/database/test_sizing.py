"""The pool's size: the formula, what PostgreSQL grants, and where that is reported."""

from __future__ import annotations

import gc
import io
import logging
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection

from generation import conf
from generation.database import sizing
from generation.database.sizing import Budget, PoolSize
from generation.runtime import server
from generation.runtime.connections import budget as connection_budget
from generation.runtime.process import Runtime
from tests.support.keys import amake_key


def poolsize(*arguments: str) -> str:
    output = io.StringIO()
    call_command("poolsize", *arguments, stdout=output)
    return output.getvalue()


# --- the formula ------------------------------------------------------------------------------


def test_the_articles_example_gives_the_articles_figures():
    size = PoolSize(concurrency=100, db_ms=50, total_ms=4000)
    assert size.demand == 1.25
    assert (size.pool_size, size.max_overflow) == (10, 20)
    assert "100 × 50 / 4000 = 1.25" in size.steps


def test_demand_beyond_the_smallest_pool_is_doubled():
    size = PoolSize(concurrency=2000, db_ms=50, total_ms=4000)
    assert size.demand == 25
    assert (size.pool_size, size.max_overflow) == (50, 100)


def test_a_fraction_of_a_connection_counts_as_one():
    assert PoolSize(concurrency=1001, db_ms=20, total_ms=4000).pool_size == 11


def test_each_process_has_a_pool_for_its_share():
    size = PoolSize(concurrency=2000, db_ms=50, total_ms=4000, workers=2)
    assert (size.demand, size.pool_size) == (25, 25)
    assert "/ 2 processes" in size.steps


# --- against what PostgreSQL grants -----------------------------------------------------------


def budget(**values) -> Budget:
    usual: dict[str, Any] = {
        "workers": 1,
        "pool_size": 10,
        "max_overflow": 20,
        "django": 4,
        "granted": 97,
        "granted_by": "max_connections",
    }
    return Budget(**usual | values)


def test_all_workers_and_some_others_need_their_connections():
    assert budget().needed == 10 + 20 + 4 + sizing.OTHERS
    assert budget(workers=3).needed == 3 * 34 + sizing.OTHERS
    assert budget().fits
    assert not budget(workers=3).fits


@pytest.mark.parametrize("workers", [3, 4, 8, 20])
def test_what_the_remedy_names_would_fit(workers):
    found = budget(workers=workers)
    named = dict(word.split("=") for word in found.remedy.split()[:2] if "=" in word)
    if named:
        pool, overflow = int(named["DB_POOL_SIZE"]), int(named["DB_MAX_OVERFLOW"])
        assert pool >= 1
        assert budget(workers=workers, pool_size=pool, max_overflow=overflow).fits
    else:
        assert workers == 20
        assert "max_connections" in found.remedy


def test_the_tightest_limit_counts(committed):
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        role, database = cursor.fetchone()
        try:
            cursor.execute(f'ALTER DATABASE "{database}" CONNECTION LIMIT 30')
            found = connection_budget(conf.load(), 1)
            assert (found.granted, found.granted_by) == (30, "the database's limit")
            assert not found.fits
            cursor.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT 20')
            assert connection_budget(conf.load(), 1).granted_by == "the role's limit"
        finally:
            cursor.execute(f'ALTER DATABASE "{database}" CONNECTION LIMIT -1')
            cursor.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT -1')
    assert "max_connections" in connection_budget(conf.load(), 1).granted_by


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"pool": False}, 0),
        ({"pool": True}, 4),
        ({"pool": {"min_size": 2}}, 2),
        ({"pool": {"min_size": 0, "max_size": 7}}, 7),
    ],
)
def test_djangos_own_pool_is_counted_as_psycopg_reads_it(options, expected):
    assert sizing.django_pool_limit({"OPTIONS": options}) == expected


# --- the system check and the start -----------------------------------------------------------


def warnings(databases) -> list:
    found = run_checks(tags=["database"], databases=databases)
    return [message for message in found if message.id == "staccato.W001"]


def test_the_check_asks_the_database_only_where_it_is_named(committed, settings):
    settings.STACCATO = {**settings.STACCATO, "DB_POOL_SIZE": 1000}
    assert warnings([]) == []
    (warning,) = warnings(["default"])
    assert "1 worker × (pool 1000" in warning.msg
    assert "DB_POOL_SIZE=" in warning.hint


def test_the_check_counts_the_workers_of_the_environment(committed, monkeypatch):
    assert warnings(["default"]) == []
    monkeypatch.setenv("WEB_CONCURRENCY", "40")
    (warning,) = warnings(["default"])
    assert "40 workers" in warning.msg


@pytest.mark.parametrize(("given", "workers"), [("", 1), ("4", 4), ("0", 1), ("many", 1)])
def test_workers_are_what_the_server_will_make_of_the_environment(monkeypatch, given, workers):
    monkeypatch.setenv("WEB_CONCURRENCY", given)
    assert server.expected_workers() == workers


def test_behind_pgbouncer_there_is_nothing_to_compare(committed, settings):
    settings.STACCATO = {
        **settings.STACCATO,
        "DB_POOL_SIZE": 1000,
        "DB_POOL_MODE": "pgbouncer-transaction",
    }
    assert warnings(["default"]) == []
    assert "PgBouncer" in poolsize("--concurrency", "1", "--db-ms", "1", "--total-ms", "1")


@pytest.mark.parametrize(("size", "level"), [(1, "INFO"), (1000, "WARNING")])
async def test_the_finding_is_logged_at_start(users, orm, settings, caplog, size, level):
    caplog.set_level(logging.INFO, "generation.runtime.startup")
    settings.STACCATO = {**settings.STACCATO, "DB_POOL_SIZE": size}
    async with Runtime.open():
        pass
    (said,) = [record for record in caplog.records if "connections:" in record.message]
    assert said.levelname == level
    assert f"pool {size} " in said.message


# --- the command ------------------------------------------------------------------------------


def test_the_command_shows_the_formula_with_its_steps(committed):
    said = poolsize("--concurrency", "100", "--db-ms", "50", "--total-ms", "4000")
    assert "100 × 50 / 4000 = 1.25" in said
    for setting in ("DB_POOL_SIZE=10", "DB_MAX_OVERFLOW=20", "DB_POOL_TIMEOUT=10"):
        assert setting in said
    assert "fits into" in said


def test_the_command_says_what_would_fit_where_it_does_not(committed):
    said = poolsize(
        "--concurrency", "1", "--db-ms", "1", "--total-ms", "1", "--workers", "100"
    )  # fmt: skip
    assert "is more than" in said
    assert "max_connections" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--concurrency", "0", "--db-ms", "1", "--total-ms", "1"),
        ("--concurrency", "1", "--db-ms", "2", "--total-ms", "1"),
        ("--url", "ftp://127.0.0.1"),
        ("--url", "http://127.0.0.1:9"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(arguments):
    with pytest.raises(CommandError):
        poolsize(*arguments)


async def test_what_is_not_given_is_measured_from_the_running_service(serve, llm):
    from tests.support import http

    async with serve() as service:
        url = f"http://127.0.0.1:{service.port}"
        with pytest.raises(CommandError, match="no request yet"):
            await sync_to_async(poolsize)("--url", url)
        for _ in range(3):
            assert (await http.generate(service.port)).status == 200
        said = await sync_to_async(poolsize)("--url", url)
        assert "3 requests answered, at most 1 at once" in said
        assert "demand = requests at once" in said
        said = await sync_to_async(poolsize)("--url", url, "--concurrency", "777")
        assert "777 × " in said


async def test_where_keys_are_required_poolsize_asks_for_a_services(serve, orm):
    key = await amake_key()
    async with serve(STACCATO_API_KEYS_REQUIRED="1") as service:
        url = f"http://127.0.0.1:{service.port}"
        with pytest.raises(CommandError, match=r"answers 403 .*--api-key or STACCATO_API_KEY"):
            await sync_to_async(poolsize)("--url", url)
        with pytest.raises(CommandError, match="no request yet"):
            await sync_to_async(poolsize)("--url", url, "--api-key", key)
    gc.collect()  # a connection left open warns now, and not in somebody else's test
