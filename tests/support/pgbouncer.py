"""A PgBouncer of a test's own, in transaction mode, with two connections to PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from project.embedded_postgres.account import Account
from tests.support.waiting import HANG_S, listens, wait_until

PORT = 6432
SERVER_CONNECTIONS = 2  # fewer than callers, so that each transaction gets another one


def find() -> str:
    """Skips the test where there is no PgBouncer; in CI that is a failure."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "CI has a PgBouncer; `.ci/run` installs it"
        pytest.skip("there is no PgBouncer here: `apt-get install pgbouncer`")
    return program


class PgBouncer:
    """Reached at `folder` as the host and `PORT` as the port, without a password."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder = folder
        self._user = user

    def url(self, database: str) -> str:
        return f"postgresql:///{database}?host={self.folder}&port={PORT}&user={self._user}"

    def show(self, what: str) -> list[dict]:
        """A table of its console, as `SHOW` gives it."""
        with psycopg.connect(
            self.url("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor
        ) as console:
            cursor = console.execute(f"SHOW {what}")
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def transactions(self, database: str) -> int:
        (row,) = (row for row in self.show("STATS_TOTALS") if row["database"] == database)
        return int(row["xact_count"])

    def server_connections(self, database: str) -> int:
        return sum(row["database"] == database for row in self.show("SERVERS"))


@contextlib.contextmanager
def running(host: str, port: str, user: str, password: str = ""):
    """Serve all databases of one PostgreSQL until the block ends."""
    program = find()
    account = Account()  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="staccato-pgb-", dir="/tmp"))
    account.own(folder)
    server = {"host": host, "port": port, "user": user, "password": password}
    place = " ".join(f"{name}={value}" for name, value in server.items() if value)
    settings = {
        "pool_mode": "transaction",
        "default_pool_size": SERVER_CONNECTIONS,
        "max_client_conn": 100,
        "auth_type": "any",
        "admin_users": user,
        "listen_port": PORT,
        "unix_socket_dir": folder,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (folder / "ini").write_text("\n".join(["[databases]", f"* = {place}", "[pgbouncer]", *lines]))
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [program, folder / "ini"], stdout=log, stderr=log, **account.credentials
    )
    try:
        wait_until(
            lambda: process.poll() is not None or listens(folder / f".s.PGSQL.{PORT}"), "PgBouncer"
        )
        assert process.poll() is None, (folder / "log").read_text()
        yield PgBouncer(folder, user)
    finally:
        process.terminate()
        process.wait(HANG_S)
        log.close()
        shutil.rmtree(folder)
