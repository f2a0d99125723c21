"""What something takes of a CPU."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


async def within(seconds: float, run: Callable[[], Awaitable[Result]], what: str) -> Result:
    """Returns what `run` returns.

    Raises `AssertionError` if it takes longer three times in a row: beside other processes, a core
    does a part of its work in the same time.
    """
    took = []
    for _ in range(3):
        began = time.process_time()
        result = await run()
        took.append(time.process_time() - began)
        if took[-1] < seconds:
            return result
    raise AssertionError(f"{what}: {took} s of a CPU, not {seconds}")
