"""Locks that the kernel frees when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

EXCLUSIVE = fcntl.LOCK_EX
SHARED = fcntl.LOCK_SH
POLL_S = 0.02


def acquire(path: Path, operation: int, timeout: float) -> int:
    """Lock a file, made where it is missing. Returns the descriptor that holds the lock.

    Raises `TimeoutError` after `timeout` seconds.
    """
    return lock(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600), path, operation, timeout)


def lock(descriptor: int, path: Path, operation: int, timeout: float) -> int:
    """Lock what is open; it is closed where that fails. Raises `TimeoutError` likewise."""
    deadline = time.monotonic() + timeout
    while not try_to_get(descriptor, operation):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise TimeoutError(f"{path} stayed locked for {timeout:g} s")
        time.sleep(POLL_S)
    return descriptor


def try_to_get(descriptor: int, operation: int) -> bool:
    """Whether the lock was free; it is held from then on."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_on(descriptor: int, path: Path) -> bool:
    """Whether what is open there is what the path names now, not something removed since."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_free(path: Path) -> bool:
    """Whether nobody holds the file exclusively."""
    try:
        os.close(acquire(path, SHARED, timeout=0))
    except TimeoutError:
        return False
    return True


def wait_until_free(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, SHARED)
    finally:
        os.close(descriptor)
