"""A task of its own for work that goes on in many steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


async def in_own_task(work: Coroutine[Any, Any, Result]) -> Result:
    """Await the work, which can be cancelled as if it were awaited directly.

    Each step of a task passes through the frames of all coroutines that await the innermost one.
    Where hundreds of tasks take turns, those are no longer in the processor's cache: for each event
    of a stream, two dozen frames cost as much as decoding it.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await task
    except asyncio.CancelledError:
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: it came with our own end, which asyncio would log
        raise
