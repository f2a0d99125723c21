"""Waiting for what happens elsewhere, as long as only a hang would take.

What takes a moment on a quiet machine takes many seconds beside a compiler. A bound that such a
machine reaches fails the test by chance, so a bound is either `HANG_S` or a setting of the service
that the test is about.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANG_S = 60.0
# The service's own limits, unless a test is about them. Where one is reached, a row waits in the
# journal, and a call that a test holds is tried again.
PATIENT = {
    "LLM_TIMEOUT": "120",
    "STACCATO_WRITE_TIMEOUT": "60",
    "DB_POOL_TIMEOUT": "60",
    "DB_COMMAND_TIMEOUT": "60",
}


async def until(condition: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Ask until what it returns, or what can be awaited of it, is true. Returns that.

    Raises `AssertionError` after `HANG_S`, with the words `what`, or those that it returns then.
    """
    end = time.monotonic() + HANG_S
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > end:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {HANG_S:.0f} s: {words}")
        await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The same where no loop runs."""
    end = time.monotonic() + HANG_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {HANG_S:.0f} s: {what}"
        time.sleep(0.02)
    return found


def listens(path: Path) -> bool:
    """Whether a server accepts connections there. A socket has its name before it does."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
