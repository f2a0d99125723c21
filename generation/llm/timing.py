"""A time limit on a provider that does not count a stall of our own process against it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LATE_S = 0.1  # a timer that fires later than this shows that the process stood still
GRACE_S = 0.2  # for reading what has arrived meanwhile


@asynccontextmanager
async def fair_timeout_at(end: float) -> AsyncIterator[None]:
    """As `asyncio.timeout_at`, but if the process stood still at the end, read what has arrived.

    The loop runs its timers before it reads sockets, so an answer that came in time and waits in
    the socket would be lost, and paid for a second time.
    """
    loop = asyncio.get_running_loop()
    due = max(end, loop.time())
    async with asyncio.timeout_at(None) as limit:

        def expire() -> None:
            now = loop.time()
            limit.reschedule(now + GRACE_S if now > due + LATE_S else now)

        timer = loop.call_at(due, expire)
        try:
            yield
        finally:
            timer.cancel()
