"""A figure that many ask for and that is dear to take: taken once for all within a moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

Taken = TypeVar("Taken")


class Recent(Generic[Taken]):
    """Lives in one event loop; in another, it takes the figure afresh."""

    def __init__(self, take: Callable[[], Coroutine[Any, Any, Taken]]) -> None:
        self._take = take
        self._task: asyncio.Task[Taken] | None = None
        self._begun = 0.0

    async def within(self, seconds: float) -> Taken:
        """Returns one whose taking began at most so long ago. Raises what taking it raises."""
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
