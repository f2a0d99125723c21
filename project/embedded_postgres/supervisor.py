"""The process between the users of a server and PostgreSQL; `holding` starts it.

It has a session of its own, so that Ctrl-C in a terminal does not stop PostgreSQL before the
application has drained. The process that starts it reads its output: `ready`, or the error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generation import files, locks
from project.embedded_postgres import layout
from project.embedded_postgres.account import Account
from project.embedded_postgres.layout import Layout

INITDB_LIMIT_S = 60.0
READY_LIMIT_S = 60.0  # recovery after a crash takes a while
GONE_LIMIT_S = 20.0  # for processes of a server that lost its supervisor to end
STOP_LIMIT_S = 10.0  # then stop without a checkpoint, which the next start recovers from
POLL_S = 0.2
LOG_TAIL_BYTES = 2000
READY = "ready"

SETTINGS = {
    "listen_addresses": "",
    "port": layout.PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "200",
}


class StartError(Exception):
    pass


class Supervisor:
    def __init__(self, base: str, binaries: str, settings: dict[str, str], starting: int) -> None:
        self.place = Layout.of(base)
        self.binaries = Path(binaries)
        self.settings = settings
        self.starting = starting
        self.account = Account()
        self.server: subprocess.Popen[bytes]

    def run(self) -> None:
        place = self.place
        locks.acquire(place.supervisor_lock, locks.EXCLUSIVE, GONE_LIMIT_S)
        users = os.open(place.sockets, os.O_RDONLY)
        self.account.own(place.sockets)
        self.log = place.log.open("wb")
        self.provide_binaries()
        self.start()
        report(READY)
        os.close(self.starting)
        while not locks.try_lock(users, locks.EXCLUSIVE):
            if self.server.poll() is not None:
                return  # the users start another supervisor
            time.sleep(POLL_S)
        self.stop()
        if locks.is_same_file(users, place.sockets):
            shutil.rmtree(place.sockets)

    def provide_binaries(self) -> None:
        """Copy the binaries if PostgreSQL's account may not reach them."""
        copy = self.place.sockets / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if self.account.can_run(self.binaries / "bin/initdb"):
            return
        package = self.binaries.parent
        target = copy / package.name / self.binaries.name
        unneeded = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(self.binaries, target, symlinks=True, ignore=unneeded)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():  # the programs find them by this relative path
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        for folder, _folders, names in os.walk(copy):
            for name in [".", *names]:
                self.account.own(Path(folder, name))
        if not self.account.can_run(target / "bin/initdb"):
            raise StartError(
                f"{self.account.name} can't run programs in {self.place.sockets}:"
                " is /tmp mounted noexec? Set DATABASE_URL, or don't run this as root."
            )
        self.binaries = target

    def start(self) -> None:
        """Start PostgreSQL and wait until it accepts connections. Raises `StartError`."""
        place = self.place
        try:
            lock = locks.acquire(place.data_lock, locks.EXCLUSIVE, GONE_LIMIT_S)
        except TimeoutError:
            raise StartError(
                f"another PostgreSQL, with the pid {self.written_pid()}, uses {place.data}:"
                " stop it, or the program that started it"
            ) from None
        if not place.data.exists():
            self.create()
        owner = place.data.stat().st_uid
        if owner != self.account.uid:
            raise StartError(
                f"{place.data} belongs to uid {owner}, not to {self.account.name}: run this"
                " as that user, or remove the folder to start with an empty database"
            )
        # The lock proves that no server runs; another process may have the pid in these by now.
        (place.data / "postmaster.pid").unlink(missing_ok=True)
        for leftover in place.sockets.glob(f".s.PGSQL.{layout.PORT}*"):
            leftover.unlink()
        folder = os.open(place.data, os.O_RDONLY)
        settings = {
            **SETTINGS,
            "unix_socket_directories": str(place.sockets),
            **self.settings,
        }
        self.server = subprocess.Popen(  # noqa: S603  # a program of the wheel
            [
                self.binaries / "bin/postgres",
                *("-D", self.account.path_to(place.data, folder)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            pass_fds=[lock, folder],
            preexec_fn=end_with_parent(),  # noqa: PLW1509  # there are no threads here
            **self.environment(),
        )
        os.close(folder)
        os.close(lock)  # PostgreSQL holds it now
        self.wait_until_ready()

    def create(self) -> None:
        """Make the data folder: completely, or not at all."""
        draft = self.place.data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.account.own(draft)
        folder = os.open(draft, os.O_RDONLY)
        done = subprocess.run(  # noqa: S603  # a program of the wheel
            [
                self.binaries / "bin/initdb",
                *("-D", self.account.path_to(draft, folder)),
                *("--username=postgres", "--auth=trust", "--encoding=UTF8"),
                # Text sorts the same on every system, whatever its locales are.
                *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
            ],
            check=False,
            pass_fds=[folder],
            timeout=INITDB_LIMIT_S,
            **self.environment(),
        )
        os.close(folder)
        if done.returncode:
            raise StartError(f"initdb failed:\n{self.log_tail()}")
        draft.rename(self.place.data)
        files.sync_folder(self.place.base)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_LIMIT_S
        while self.server.poll() is None:
            if time.monotonic() > deadline:
                self.stop()
                raise StartError(
                    f"PostgreSQL was not ready after {READY_LIMIT_S:g} s:\n{self.log_tail()}"
                )
            lines = self.pid_file()
            if lines[:1] == [str(self.server.pid)] and lines[-1].strip() == "ready":
                return
            time.sleep(locks.POLL_S)
        raise StartError(f"PostgreSQL did not start:\n{self.log_tail()}")

    def stop(self) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            self.server.send_signal(number)
            try:
                self.server.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                continue
            return

    def environment(self) -> dict[str, Any]:
        """Returns `subprocess` arguments that keep the caller's environment, e.g. PGPORT and
        PGDATA, from PostgreSQL's programs."""
        return {
            "env": {"PATH": os.defpath, "LC_ALL": "C"},
            "stdin": subprocess.DEVNULL,
            "stdout": self.log,
            "stderr": self.log,
            **self.account.credentials,
        }

    def pid_file(self) -> list[str]:
        try:
            return (self.place.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def written_pid(self) -> str:
        return (self.pid_file() or ["unknown"])[0]

    def log_tail(self) -> str:
        return self.place.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def end_with_parent() -> Callable[[], None] | None:
    """Returns a function for a child to call, so that it gets SIGINT when this process dies.

    Linux only: elsewhere, a server whose supervisor was killed has to be stopped by hand.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask() -> None:
        set_parent_death_signal = 1
        libc.prctl(set_parent_death_signal, signal.SIGINT)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask


def report(words: str) -> None:
    """Send the one answer to the process that started us, if it still lives."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, words.encode())
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def main() -> None:
    if os.fork():
        os._exit(0)  # so that the process that started us has no child to reap
    os.setsid()
    try:
        Supervisor(**json.loads(sys.argv[1])).run()
    except (StartError, OSError, subprocess.SubprocessError) as error:
        report(f"{error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
