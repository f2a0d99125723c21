"""Work that a process repeats while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from generation.errors import StaccatoError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Work = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def repeating(work: Work, every_s: float) -> AsyncIterator[None]:
    """Do some work now and then again after each pause, until the block ends."""
    tolerant = tolerating(work)

    async def repeat() -> None:
        while True:
            await tolerant()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def tolerating(work: Work) -> Work:
    """The same work, except that a `StaccatoError` is logged: the next time will do."""

    async def tolerant() -> None:
        try:
            await work()
        except StaccatoError as error:
            logger.info("housekeeping is postponed: %s", error)

    return tolerant
