"""A PostgreSQL of their own for these files, to freeze, stop and kill."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.durability.support import looking
from tests.support import service
from tests.support.database import folder_of_the_run
from tests.support.postgres import PrivatePostgres


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """A data folder with our tables and the demo's users, made once for all workers."""
    folder = folder_of_the_run(tmp_path_factory)
    data = folder / "migrated"
    with (folder / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not data.exists():
            server = PrivatePostgres()
            try:
                server.start()
                service.manage(server.url, "migrate", "--verbosity", "0")
                service.manage(server.url, "seed_demo")
                server.stop()
                server.copy_data(data)
            finally:
                server.remove()
    return data


@pytest.fixture(scope="session")
def own_postgres(migrated):
    """One server for all files of a worker; each test leaves it running and empty."""
    server = PrivatePostgres(data=migrated)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def postgres(own_postgres):
    if own_postgres.is_stopped:
        own_postgres.start()
    yield own_postgres
    if own_postgres.is_stopped:
        own_postgres.start()
    own_postgres.thaw()
    async with looking(own_postgres) as sql:
        for table in ("generationlog", "generationbody", "usagelog", "idempotencykey"):
            await sql.execute(f"DELETE FROM generation_{table}")


@pytest.fixture
def journal_dir():
    folder = tempfile.mkdtemp(prefix="staccato-journal-")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def serve(postgres, llm, journal_dir):
    def start(**env: str):
        return service.running(
            postgres.url,
            **{
                "LLM_PROVIDER": "anthropic",
                "ANTHROPIC_API_KEY": "test-key",
                "ANTHROPIC_BASE_URL": llm.url,
                "STACCATO_JOURNAL_DIR": str(journal_dir),
                "STACCATO_JOURNAL_MAX_BYTES": "1048576",
                "STACCATO_WRITE_TIMEOUT": "0.5",
                **env,
            },
        )

    return start
