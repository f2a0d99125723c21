"""A task of its own for work that goes on in many steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

Result = TypeVar("Result")


async def in_own_task(work: Coroutine[Any, Any, Result], context: Context | None = None) -> Result:
    """Await the work, which can be cancelled as if it were awaited directly. It runs in `context`,
    or in a copy of ours.

    Each step of a task passes through the frames of all coroutines that await the innermost one.
    For a stream, that would be two dozen frames for each event.
    """
    task = asyncio.get_running_loop().create_task(work, context=context)
    try:
        return await task
    except asyncio.CancelledError:
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: it came with our own end, which asyncio would log
        raise
