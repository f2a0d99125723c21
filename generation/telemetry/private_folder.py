"""A temporary folder that the processes of one account share, and that nobody else may enter."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

import orjson

from generation import files, locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DRAFT = ".draft"
LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing, and hold its lock.

    Raises `OSError` if the folder is not private or can't be made.
    """
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
        with contextlib.ExitStack() as stack:
            # The last process to leave removes the folder, maybe while we wait for its lock.
            try:
                is_current = stack.enter_context(locks.held(folder / LOCK))
            except FileNotFoundError:
                continue
            if is_current:
                yield
                return


def _check_private(folder: Path) -> None:
    """Raises `OSError`. In a shared /tmp, another account may have made the folder first."""
    with contextlib.suppress(FileNotFoundError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a private folder of this account")


def write(path: Path, content: Any) -> None:
    """Write a file of it, as JSON. Raises `OSError`."""
    # It lives in /tmp and forgets a crash of the machine, so no sync is needed.
    files.replace(path, orjson.dumps(content), draft=path.with_suffix(DRAFT), durable=False)


def read(path: Path) -> Any:
    """Returns None where the file is gone, or is not whole."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
