"""Behind a real PgBouncer in transaction mode no statement fails and none is another's."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.db import connection, connections

from generation.errors import DatabaseUnavailable
from generation.models import Profile
from generation.partitions import ddl
from generation.partitions.ddl import AHEAD
from generation.partitions.intervals import WEEK, interval_at
from generation.records import KeyedRow, LogRow
from generation.runtime.process import Runtime
from generation.store.profiles import Profiles
from generation.uuid7 import uuid7
from tests.support import http, pgbouncer, service
from tests.support.in_process import quiet_runtimes
from tests.support.rollups import catch_up

ROOT = Path(__file__).parents[2]
MODE = "pgbouncer-transaction"
CALLERS = 12
PHASES = 1_600
USERS = range(1, 41)


@pytest.fixture
def bouncer(committed):
    """In front of the tests' PostgreSQL."""
    at = connection.settings_dict
    with pgbouncer.running(at["HOST"], at["PORT"], at["USER"], at["PASSWORD"]) as opened:
        yield opened


@pytest.fixture
async def behind_bouncer(bouncer, many_users, settings, monkeypatch):
    """The settings of this process, as DATABASE_URL and DB_POOL_MODE would make them."""
    settings.STACCATO = {**settings.STACCATO, "DB_POOL_MODE": MODE, "DB_POOL_SIZE": CALLERS}
    moved = {
        **connections.settings["default"],
        "HOST": str(bouncer.folder),
        "PORT": str(pgbouncer.PORT),
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
    monkeypatch.setitem(connections.settings, "default", moved)
    await sync_to_async(forget_connection)()
    yield bouncer
    await sync_to_async(forget_connection)()


def forget_connection() -> None:
    """Django keeps one for each thread, with the settings that it was made from."""
    connections["default"].close()
    del connections["default"]


def profiles_of(runtime: Runtime) -> Profiles:
    assert isinstance(runtime.store.profiles, Profiles)
    return runtime.store.profiles


def prompt_of(user_id: int) -> str:
    return f"The prompt of user {user_id}, and nobody else's: {user_id**7}."


@pytest.fixture
def many_users(committed) -> None:
    users = [get_user_model()(id=key, username=f"user{key}") for key in USERS]
    get_user_model().objects.bulk_create(users)
    Profile.objects.bulk_create(
        Profile(user_id=key, prompt_template=prompt_of(key)) for key in USERS
    )


def row(number: int) -> LogRow:
    user_id = USERS[number % len(USERS)]
    now = datetime.now(UTC)
    return LogRow(
        id=uuid7(), user_id=user_id, prompt=prompt_of(user_id), system="",
        result=f"The result of row {number}.", result_cleaned=False, provider="simulated",
        model="simulated", input_tokens=number, output_tokens=1, total_tokens=number + 1,
        status="succeeded", error_type="", error="", stop_reason="end_turn", attempts=(),
        raw_reply="", cost_usd=None, latency_ms=1, llm_latency_ms=1, request_id=f"r{number}",
        created_at=now,
    )  # fmt: skip


async def test_no_phase_fails_or_gets_what_belongs_to_another(behind_bouncer, sql):
    """A phase is one statement in one transaction: a read of one profile, or the insertion of one
    row. The batchers are left out, which would let all callers share a statement."""
    written: list[LogRow] = []
    wrong: list[str] = []
    database = connections.settings["default"]["NAME"]

    async def call(numbers: range) -> None:
        for number in numbers:
            user_id = USERS[number % len(USERS)]
            (profile,) = await profiles_of(runtime)._read_batch([user_id])
            if profile is None or profile.prompt_template != prompt_of(user_id):
                wrong.append(f"user {user_id} got {profile}")
            new = row(number)
            await runtime.store.logs._insert_batch([KeyedRow(new)])
            written.append(new)

    async with Runtime.open() as runtime:
        before = behind_bouncer.transactions(database)
        async with asyncio.TaskGroup() as callers:  # one error ends the test
            for first in range(CALLERS):
                callers.create_task(call(range(first, PHASES // 2, CALLERS)))
        passed = behind_bouncer.transactions(database) - before
        assert runtime.database.pool.peak_checked_out >= CALLERS
        assert behind_bouncer.server_connections(database) <= pgbouncer.SERVER_CONNECTIONS
    assert passed >= PHASES
    assert wrong == []
    found = await sql.fetch(
        "SELECT id, user_id, prompt, result, input_tokens, request_id"
        " FROM generation_generationlog JOIN generation_generationbody USING (id)"
    )
    assert len(found) == len(written) == PHASES // 2
    assert {tuple(stored) for stored in found} == {
        (new.id, new.user_id, new.prompt, new.result, new.input_tokens, new.request_id)
        for new in written
    }
    usage = await sql.fetchval("SELECT count(*) FROM generation_usagelog")
    assert usage == PHASES // 2
    await catch_up()
    assert await sql.fetchval("SELECT sum(requests) FROM generation_spend") == PHASES // 2


async def test_the_mode_sets_both_caches_to_nothing_and_leaves_out_the_ping(behind_bouncer):
    async with Runtime.open() as runtime:
        assert not runtime.database.pool._pre_ping
        async with runtime.database.engine.connect() as borrowed:
            raw = await borrowed.get_raw_connection()
            assert not raw.driver_connection._stmt_cache_enabled
            assert raw.dbapi_connection._prepared_statement_cache is None


async def test_without_the_mode_the_log_names_the_setting(behind_bouncer, settings, caplog):
    settings.STACCATO = {**settings.STACCATO, "DB_POOL_MODE": "direct"}

    async def call(first: int) -> None:
        for number in range(first, 400, CALLERS):
            with contextlib.suppress(DatabaseUnavailable):
                await profiles_of(runtime)._read_batch([USERS[number % len(USERS)]])

    async with Runtime.open() as runtime, asyncio.TaskGroup() as callers:
        for first in range(CALLERS):
            callers.create_task(call(first))
    assert "PgBouncer" in caplog.text
    assert "DB_POOL_MODE=pgbouncer-transaction" in caplog.text


async def test_djangos_own_connections_leave_nothing_on_the_server(behind_bouncer):
    def ask() -> int | None:
        users = get_user_model().objects
        for _ in range(20):  # psycopg would prepare at the fifth time
            assert users.get(id=7).username == "user7"
        rows = users.iterator(chunk_size=3)
        next(rows)
        with psycopg.connect(behind_bouncer.url(connection.settings_dict["NAME"])) as other:
            other.execute("SELECT 1")  # its transaction keeps the server connection last used
            assert len(list(rows)) == len(USERS) - 1
        return connection.connection.prepare_threshold

    assert await sync_to_async(ask)() is None


def test_a_project_that_lacks_djangos_part_of_the_profile_is_warned(settings, monkeypatch):
    complete = {**connections.settings["default"], "DISABLE_SERVER_SIDE_CURSORS": True}

    def warnings(**changes) -> list[str]:
        monkeypatch.setitem(settings.DATABASES, "default", {**complete, **changes})
        found = run_checks(tags=["staccato"])
        return [message.msg for message in found if message.id == "staccato.W002"]

    assert warnings(DISABLE_SERVER_SIDE_CURSORS=False) == []
    settings.STACCATO = {**settings.STACCATO, "DB_POOL_MODE": MODE}
    assert warnings() == []
    (warning,) = warnings(DISABLE_SERVER_SIDE_CURSORS=False)
    assert "DISABLE_SERVER_SIDE_CURSORS is not True" in warning
    (warning,) = warnings(OPTIONS={"prepare_threshold": 5})
    assert "prepare_threshold" in warning


async def test_the_service_is_migrated_and_serves_through_pgbouncer(bouncer, sql, llm):
    name = f"behind_pgbouncer_{os.getpid()}"
    await sql.execute(f"CREATE DATABASE {name}")
    url = bouncer.url(name)
    env = {
        "DB_POOL_MODE": MODE,
        "LLM_PROVIDER": "anthropic",
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": llm.url,
    }
    try:
        for command in (["migrate"], ["seed_demo"], ["check", "--database", "default"]):
            await asyncio.to_thread(service.manage, url, *command, **env)
        async with service.running(url, **env) as served:
            answers = await asyncio.gather(*(http.generate(served.port) for _ in range(30)))
            assert {answer.status for answer in answers} == {200}
            assert answers[0].json()["result"] == "Hello."
            assert (await http.request(served.port, "GET", "/readyz")).status == 200
            keyed = [("Idempotency-Key", "one")]
            first = await http.generate(served.port, 1, headers=keyed)
            again = await http.generate(served.port, 1, headers=keyed)
            assert (first.status, again.json()) == (200, first.json())
            login = await http.request(served.port, "GET", "/admin/login/")
            assert login.status == 200
    finally:
        await sql.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_partitions_are_made_and_dropped_behind_it(behind_bouncer, sql):
    parent = ddl.Parent("parted", WEEK)
    old = interval_at(datetime.now(UTC) - timedelta(days=60), WEEK)
    await sql.execute("CREATE TABLE parted (id uuid PRIMARY KEY) PARTITION BY RANGE (id)")
    for statement in ddl.make(parent, old):
        await sql.execute(statement)
    steps: list[str] = []
    try:
        with quiet_runtimes():  # its own maintenance, at the start, would do what ours is to do
            async with Runtime.open() as runtime:
                runtime.maintenance._kept = {parent: timedelta(days=30)}
                assert await runtime.maintenance.maintain(steps.append)
    finally:
        await sql.execute("DROP TABLE parted")
    assert sum(step.startswith("made") for step in steps) == AHEAD // WEEK + 2
    assert f"dropped {parent.partition(old)}" in steps
