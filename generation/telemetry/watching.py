"""Figures that many tabs watch: taken once for all of them, and asked for less often by each the
more there are."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

Taken = TypeVar("Taken")

# Of all tabs together. An answer takes 0.3 to 0.7 ms of CPU, most of it the server's own.
ANSWERS_PER_S = 25
RAREST_S = 30
LATE_S = 0.25  # the most by which a tab asks later than it may


class Watchers:
    """Counts those who watch by when each will ask again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected: list[float] = []  # a heap of the moments at which they ask again

    def wait_s(self) -> int:
        """Returns in how many seconds the one who asks now may ask again."""
        now = self._clock()
        while self._expected and self._expected[0] < now:
            heapq.heappop(self._expected)
        watching = len(self._expected) + 1
        wait_s = min(RAREST_S, max(1, round(watching / ANSWERS_PER_S)))
        if watching < ANSWERS_PER_S * RAREST_S:
            heapq.heappush(self._expected, now + wait_s + LATE_S)
        return wait_s


class Recent(Generic[Taken]):
    """A figure that one event loop shares among its readers; in another loop it is taken again."""

    def __init__(self, take: Callable[[], Coroutine[Any, Any, Taken]]) -> None:
        self._take = take
        self._task: asyncio.Task[Taken] | None = None
        self._begun = 0.0

    async def within(self, seconds: float) -> Taken:
        """Returns a figure that is at most `seconds` old. Raises what `take` raises."""
        loop = asyncio.get_running_loop()
        task = self._task
        is_usable = (
            task is not None
            and task.get_loop() is loop
            and loop.time() - self._begun < seconds
            and not (task.done() and (task.cancelled() or task.exception()))
        )
        if task is None or not is_usable:
            task = self._task = loop.create_task(self._take())
            self._begun = loop.time()
        return await asyncio.shield(task)  # one who leaves does not end it for the others
