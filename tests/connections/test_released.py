"""`released()`: a host's own connections are given back before its slow call, in every kind of
code, and proof is given that none came back."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, connections, transaction
from django.test import Client, TestCase

from generation import aheld_connections, held_connections, released
from generation.errors import ConnectionHeld, HeldInTransaction, WrongThread
from generation.telemetry import metrics
from tests.connections import views
from tests.support.in_process import serve
from tests.support.waiting import HANG_S

ROOT = Path(__file__).parents[2]


def read() -> int:
    return get_user_model().objects.count()


@pytest.fixture
def closed(committed):
    """Starts and ends without a connection in this thread."""
    connections.close_all()
    yield
    connections.close_all()


def violations() -> float:
    return metrics.GUARD_VIOLATIONS._value.get()


# --- synchronous code -------------------------------------------------------------------------


def test_nothing_is_held_inside_and_the_next_query_opens_a_connection_again(closed):
    read()
    (held,) = held_connections()
    assert (held.alias, held.in_transaction) == ("default", False)
    with released():
        assert held_connections() == ()
    assert read() == 0


def test_only_the_named_databases_are_given_back(closed):
    read()
    with released(using="another"):
        assert len(held_connections()) == 1
    with released(using=["default"]):
        assert held_connections() == ()


def test_a_transaction_is_refused_and_goes_on(closed):
    with transaction.atomic():
        get_user_model().objects.create(username="inside")
        with pytest.raises(HeldInTransaction, match="default"), released():
            pass
        assert held_connections()[0].in_transaction
    assert read() == 1


def test_autocommit_that_is_off_counts_as_a_transaction(closed):
    read()
    transaction.set_autocommit(False)
    try:
        with pytest.raises(HeldInTransaction), released():
            pass
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def test_atomic_requests_are_refused(closed, settings):
    settings.ROOT_URLCONF = views.__name__
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with pytest.raises(HeldInTransaction, match="non_atomic_requests"):
            Client().get("/waits-released-sync")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert Client().get("/waits-released-sync").status_code == 200


@pytest.mark.parametrize("debug", [True, False])
def test_a_query_inside_is_reported_and_its_connection_closed(closed, settings, caplog, debug):
    settings.DEBUG = debug
    before = violations()
    if debug:
        with pytest.raises(ConnectionHeld, match="inside `released"), released():
            read()
    else:
        with released():
            read()
        assert violations() == before + 1
        assert "a query inside" in caplog.text
    assert held_connections() == ()


def test_an_error_of_the_block_is_not_hidden_by_the_report(closed, settings):
    settings.DEBUG = True
    with pytest.raises(ZeroDivisionError), released():
        read()
        raise ZeroDivisionError
    with released(check=False):
        read()
    assert held_connections() == ()


class TestInsideATestCase(TestCase):
    def test_a_test_cases_transaction_is_no_transaction_of_the_codes(self):
        get_user_model().objects.create(username="uncommitted")
        with released():
            pass
        assert read() == 1, "the test's rows are gone: its connection was closed"
        with transaction.atomic(), pytest.raises(HeldInTransaction), released():
            pass


# --- async code -------------------------------------------------------------------------------


async def test_async_code_gives_back_what_its_orm_calls_hold_in_another_thread(orm):
    await get_user_model().objects.acount()
    assert len(await aheld_connections()) == 1
    async with released():
        assert await aheld_connections() == ()
    assert await get_user_model().objects.acount() == 0


async def test_a_plain_with_in_async_code_would_close_nothing_so_it_is_refused(orm):
    with pytest.raises(WrongThread, match="async with"), released():
        pass
    with pytest.raises(WrongThread, match="aheld_connections"):
        held_connections()


async def test_a_query_in_any_thread_that_the_block_starts_is_found(orm, settings):
    settings.DEBUG = True
    leaked = threading.Event()

    def read_and_stay() -> None:
        read()
        leaked.set()

    with pytest.raises(ConnectionHeld):
        async with released():
            await get_user_model().objects.acount()
    assert await aheld_connections() == ()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:  # asyncio.to_thread may take another one to close it
        with pytest.raises(ConnectionHeld):
            async with released():
                await loop.run_in_executor(thread, contextvars.copy_context().run, read_and_stay)
        await loop.run_in_executor(thread, connections.close_all)


def test_async_code_under_a_synchronous_transaction_is_refused(closed):
    async def slow() -> None:
        async with released():
            pass

    with transaction.atomic(), pytest.raises(HeldInTransaction):
        async_to_sync(slow)()


async def test_two_hundred_callers_who_wait_inside_hold_no_backend(orm, sql, settings):
    settings.ROOT_URLCONF = views.__name__
    settings.MIDDLEWARE = []
    application = ASGIHandler()
    inside, leave = 0, asyncio.Event()
    all_inside = asyncio.Event()

    async def barrier() -> None:
        nonlocal inside
        inside += 1
        if inside == 200:
            all_inside.set()
        await leave.wait()

    views.barrier = barrier
    before = await backends(sql)
    callers = [
        asyncio.create_task(serve(application, method="GET", path="/waits-released"))
        for _ in range(200)
    ]
    async with asyncio.timeout(HANG_S):
        await all_inside.wait()
        while await backends(sql) - before:  # one may be just leaving; else this never ends
            await asyncio.sleep(0.01)
        leave.set()
        statuses = await asyncio.gather(*callers)
    assert set(statuses) == {200}


async def backends(sql) -> set[int]:
    rows = await sql.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend'"
    )
    return {row["pid"] for row in rows}


# --- any database -----------------------------------------------------------------------------

ALONE = """
import sys
for name in ("sqlalchemy", "asyncpg", "psycopg", "httpx", "httptools", "ninja", "orjson",
             "prometheus_client", "pydantic"):
    sys.modules[name] = None  # importing it fails
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": NAME}})
import django
django.setup()
from django.db import connection
from generation import held_connections, released
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
assert len(held_connections()) == 1
with released():
    assert held_connections() == ()
"""


def test_it_needs_django_alone_and_works_with_sqlite(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"NAME = {str(tmp_path / 'db')!r}\n{ALONE}"],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_to_import_the_package_needs_no_settings():
    code = "import generation; assert generation.__version__; dir(generation)"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        check=True,
    )


async def test_sync_code_inside_async_code_sees_its_own_connections(orm):
    """A synchronous view under ASGI runs in the request's thread."""

    def view() -> None:
        read()
        assert len(held_connections()) == 1
        with released():
            assert held_connections() == ()

    await sync_to_async(view)()
