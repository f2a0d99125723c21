"""File locks. The kernel frees a lock when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXCLUSIVE = fcntl.LOCK_EX
SHARED = fcntl.LOCK_SH
POLL_S = 0.02


def acquire(path: Path, operation: int, timeout: float) -> int:
    """Lock a file, and create it where it is missing. Returns the descriptor that holds the lock.

    Raises `TimeoutError` after `timeout` seconds.
    """
    return lock(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600), path, operation, timeout)


def lock(descriptor: int, path: Path, operation: int, timeout: float) -> int:
    """Lock an open file. Closes it and raises `TimeoutError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not try_lock(descriptor, operation):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise TimeoutError(f"{path} stayed locked for {timeout:g} s")
        time.sleep(POLL_S)
    return descriptor


def try_lock(descriptor: int, operation: int = EXCLUSIVE) -> bool:
    """Lock an open file if nobody else holds its lock. Returns whether it is locked now."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a file's lock exclusively; waits for it, and creates the file where it is missing.

    Yields whether the path still names the locked file: the previous holder may have removed it.
    Raises `OSError`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, EXCLUSIVE)
        yield is_same_file(descriptor, path)
    finally:
        os.close(descriptor)


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file, which may have been removed or replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_free(path: Path) -> bool:
    """Whether nobody holds the file's lock exclusively."""
    try:
        os.close(acquire(path, SHARED, timeout=0))
    except TimeoutError:
        return False
    return True


def wait_until_free(path: Path) -> None:
    """Return when nobody holds the file's lock exclusively."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, SHARED)
    finally:
        os.close(descriptor)
