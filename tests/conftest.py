"""Fixtures: a migrated PostgreSQL, users with prompts, and the service in or out of process."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
import trustme
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.db.backends.signals import connection_created
from xdist.scheduler import LoadFileScheduling

from generation.asgi import get_application
from generation.models import Profile
from generation.runtime.process import Runtime
from generation.store import api_keys, claims, generations, held_results, logs, profiles
from tests.settings import OF_ANOTHER_VERSION, STACCATO
from tests.support import emptying, postgres, service
from tests.support.database import OwnDatabase, folder_of_the_run
from tests.support.dialects import AnthropicDialect
from tests.support.in_process import Here, in_process_client, listening, quiet_runtimes
from tests.support.provider import Provider, says

HERE = Path(__file__).parent
JOURNALS = Path(str(STACCATO["JOURNAL_DIR"]))
# Until all tests are loaded: it would go through more and more, for two seconds, and find nothing.
gc.disable()
SERVED = {"django_db_setup", "own_postgres", "server", "servers", "serve", "browser"}
STATEMENTS: dict[Any, tuple[str, ...]] = {
    logs._Statements: ("insert",),
    claims: ("_claim_statement", "_release_statement", "_renew_statement", "_purge_statement"),
    profiles: ("_select_profiles",),
    generations: ("_statement",),
    held_results: ("_find_statement", "_settle_statement"),
    api_keys: ("_find_statement", "_use_statement"),
}
# What a process does in threads from time to time: it counts dead letters and looks for journals.
OF_ITS_OWN = re.compile(
    r"DeadLetters\.count|JournalFile\.adopt|list_files|remove_drafts|_name_foreign"
)
BROWSER = "tests/browser/"
# What is around the service: a browser, vendors' clients, other projects, PgBouncer and TLS before
# PostgreSQL, siblings, ways to start it, fuzzing. It takes as long as all the rest, so `make test`
# leaves it to `make check`.
SYSTEM = (
    "browser/",
    "clients/",
    "hosts/",
    "api/test_openapi.py",
    "asgi/test_fuzz.py",
    "asgi/test_stock_places.py",
    "admin/test_lockout.py",
    "database/test_hosts.py",
    "database/test_pgbouncer.py",
    "database/test_tls.py",
    "loadtest/test_loadtest.py",
    "project/test_embedded_postgres.py",
    "project/test_pytest_plugin.py",
    "project/test_runserver.py",
    "telemetry/test_siblings.py",
)
# The files that take longest: begun last, one of them would keep one worker busy and the rest idle.
LONG = [
    "test_forms",
    "test_admin_pages",
    "test_reading",
    "test_journals",
    "test_hostile_replies",
    "test_openapi",
    "test_loadtest",
    "test_runserver",
    "test_outages",
    "test_embedded_postgres",
    "test_siblings",
    "test_body",
    "test_secrets",
    "test_streams",
    "test_tls",
    "test_hosts",
    "test_pgbouncer",
    "test_processes",
    "test_stock_places",
    "test_lockout",
    "test_idempotency",
    "test_endings",
    "test_clients",
    "test_page",
    "test_user_keys",
    "test_no_trespass",
    "test_canary",
    "test_log",
    "test_pytest_plugin",
    "test_start",
]


def pytest_collection_modifyitems(items) -> None:
    """Mark what needs PostgreSQL, the service or a browser: `-m "not served"` is quick."""
    for item in items:
        if SERVED & set(item.fixturenames) or item.path.parent.name == "project":
            item.add_marker(pytest.mark.served)
        if item.path.relative_to(HERE).as_posix().startswith(SYSTEM):
            item.add_marker(pytest.mark.system)
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_unconfigure() -> None:
    if OF_ANOTHER_VERSION is not None:
        OF_ANOTHER_VERSION.remove()


def pytest_collection_finish() -> None:
    """What is loaded by now stays; each full collection would look through it for 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.enable()


class OneBrowser(LoadFileScheduling):  # type: ignore[misc]  # xdist ships no types
    """A file stays on one worker, and so do all files that share the browser."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return BROWSER if file.startswith(BROWSER) else file


def pytest_xdist_make_scheduler(config, log) -> OneBrowser:
    gc.enable()  # this process collects no tests
    return OneBrowser(config, log)


@pytest.fixture(scope="session", autouse=True)
def _many_files() -> None:
    """Thousands of sockets on both ends of the wire."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 20_000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, hard), hard))


@pytest.fixture(scope="session", autouse=True)
def _few_authorities(tmp_path_factory) -> Iterator[None]:
    """Each LLM client reads the authorities that it trusts: for 0.02 s if they are the system's."""
    file = tmp_path_factory.mktemp("authorities") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        patch.delenv("SSL_CERT_DIR", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _statements_made_once() -> Iterator[None]:
    """SQLAlchemy makes those of a runtime in 0.01 s, and here hundreds of runtimes open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_Statements", functools.cache(logs._Statements))
        for module, names in STATEMENTS.items():
            for name in names:
                patch.setattr(module, name, functools.cache(getattr(module, name)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_folders_left() -> Iterator[None]:
    yield
    postgres.remove_kept()
    shutil.rmtree(JOURNALS, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment, django_db_blocker, tmp_path_factory) -> Iterator[None]:
    """pytest-django's own sets up only what its marks and fixtures name; `committed` is ours."""
    with django_db_blocker.unblock():
        own = OwnDatabase(folder_of_the_run(tmp_path_factory))
    yield
    with django_db_blocker.unblock():
        own.remove()


@pytest.fixture(scope="session")
def empty_tables(django_db_setup, django_db_blocker) -> str:
    """Statements that empty all tables that tests fill."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        return emptying.statements(cursor)


@pytest.fixture(scope="session")
def emptied_after(empty_tables, django_db_blocker):
    """Empty the tables after a block that shares a service: as it ends, it stores what it has, and
    the last test's rows are gone by then."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        yield
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(empty_tables)

    return block


@pytest.fixture
def committed(empty_tables, django_db_blocker) -> Iterator[None]:
    """An empty database in which rows are really committed: asyncpg sees no transaction of ours.

    pytest-django's transactional_db would do, but takes a second for each test.
    """
    with django_db_blocker.unblock():
        yield
        with connection.cursor() as cursor:
            cursor.execute(empty_tables)
    for journal in JOURNALS.iterdir():  # the next runtime would store its rows
        journal.unlink(missing_ok=True)


@pytest.fixture
def users(committed) -> None:
    """User 1 has a plain prompt, 2 $input, 3 a variable; 4 is inactive, 5 has no profile."""
    templates = {1: "Tell me about the sky.", 2: "Say: $input!", 3: "In a $tone tone: $input"}
    account = get_user_model()
    account.objects.bulk_create(
        account(id=key, username=f"user{key}", is_active=key != 4) for key in range(1, 6)
    )
    Profile.objects.bulk_create(
        Profile(user_id=key, prompt_template=templates.get(key, "Hello.")) for key in range(1, 5)
    )


@pytest.fixture(scope="session")
def postgres_url(django_db_setup) -> str:
    """The test database, as DATABASE_URL."""
    at = connection.settings_dict
    parts = {"host": at["HOST"], "port": at["PORT"], "user": at["USER"], "password": at["PASSWORD"]}
    given = {name: value for name, value in parts.items() if value}
    return f"postgresql:///{at['NAME']}?{urlencode(given)}"


@pytest.fixture
def database_url(committed, postgres_url) -> str:
    """The same; it is emptied after the test."""
    return postgres_url


@pytest.fixture
async def sql(database_url):
    """A connection of the test's own, to look behind the service's back."""
    link = await asyncpg.connect(database_url)
    yield link
    await link.close()


@pytest.fixture
async def llm():
    async with Provider(says(200, AnthropicDialect().answer())).serve() as provider:
        yield provider


@pytest.fixture
async def serve(users, database_url, llm):
    """Start the service with the fake LLM: `async with serve(NAME="value") as service`."""

    def start(*options: str, **env: str):
        return service.running(
            database_url,
            *options,
            **{
                "LLM_PROVIDER": "anthropic",
                "ANTHROPIC_API_KEY": "test-key",
                "ANTHROPIC_BASE_URL": llm.url,
                **env,
            },
        )

    return start


@pytest.fixture
def here(users, orm, llm, settings):
    """The same in this process, for what needs no process of its own: `here(NAME="value")`, with
    the names of the settings STACCATO. It starts in a tenth of the time."""

    @contextlib.asynccontextmanager
    async def start(**changes: str):
        fake = AnthropicDialect().settings(llm.url, LLM_PROVIDER="anthropic")
        settings.STACCATO = {**settings.STACCATO, **fake, **changes}
        with quiet_runtimes():
            async with Runtime.open(), listening(get_application()) as port:
                yield Here(port)

    return start


@pytest.fixture
def peppered(settings) -> None:
    """Keys that the test makes are good where `service.PRODUCTION` is served."""
    pepper = service.PRODUCTION["STACCATO_API_KEY_PEPPER"]
    settings.STACCATO = {**settings.STACCATO, "API_KEY_PEPPER": pepper}


@pytest.fixture
async def orm(committed):
    """For async tests that use the Django ORM: closes what its thread has opened."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
async def runtime(users, orm):
    """The runtime in this process, with the simulated provider."""
    with quiet_runtimes():
        async with Runtime.open() as opened:
            yield opened


@pytest.fixture
async def client(runtime):
    """Calls the ASGI application in this process."""
    async with in_process_client() as opened:
        yield opened


@pytest.fixture
def thread_entries(monkeypatch) -> list[str]:
    """What is handed to any thread pool; asgiref's executors are such pools."""
    entries: list[str] = []
    submit = ThreadPoolExecutor.submit

    def record(self, function, *args, **kwargs):
        if not OF_ITS_OWN.search(repr((function, args))):
            entries.append(repr(function))
        return submit(self, function, *args, **kwargs)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", record)
    return entries


@pytest.fixture
def django_connections():
    opened: list[object] = []

    def record(connection, **_kwargs):
        opened.append(connection)

    connection_created.connect(record)
    yield opened
    connection_created.disconnect(record)
