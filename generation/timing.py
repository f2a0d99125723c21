"""A time limit that doesn't count a stall of our own process, and whose end may be moved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

GRACE_PER_LATE = 5.0  # seconds for each that the timer fires late
GRACE_S = 0.5  # at most, for reading what has arrived meanwhile, on a crowded machine, too


class FairTimeout:
    """As `asyncio.timeout_at`, but if the process stood still at the end, read what has arrived.

    The loop runs its timers before it reads sockets, so an answer that came in time and waits in
    the socket would be lost, and paid for a second time. A class, because a generator as the
    context manager takes 9 µs more than `timeout_at`, and this takes 2.

    `move_to()` sets another end. It is cheap enough for each event of a stream: the timer stays
    where it is, and looks at the end when it fires.
    """

    __slots__ = ("_due", "_fires_at", "_in_grace", "_limit", "_loop", "_timer")

    def __init__(self, end: float) -> None:
        """`end` is a time of the event loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._due = max(end, self._loop.time())
        self._limit = asyncio.timeout_at(None)
        self._in_grace = False

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._arm()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raises `TimeoutError` if the time is up."""
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def move_to(self, end: float) -> None:
        if self._in_grace and end <= self._loop.time():
            return  # the grace is short enough
        self._due = end
        if self._in_grace or end < self._fires_at:
            self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        self._fires_at = self._due
        self._timer = self._loop.call_at(self._due, self._expire)
        if self._in_grace and not self._limit.expired():
            self._in_grace = False
            self._limit.reschedule(None)

    def _expire(self) -> None:
        now = self._loop.time()
        if now < self._due:
            self._arm()
            return
        self._in_grace = True
        self._limit.reschedule(now + min((now - self._due) * GRACE_PER_LATE, GRACE_S))
