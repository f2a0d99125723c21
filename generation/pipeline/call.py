"""One generation under way: a task of the process, whose second phase may be given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from generation.errors import Abandoned

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from generation.records import Generation, GenerationRequest

Result = TypeVar("Result")


class Call:
    """The runtime owns its task; the view abandons it where the client leaves."""

    def __init__(self, request: GenerationRequest, on_abandon: Callable[[], None]) -> None:
        self.request = request
        self._on_abandon = on_abandon
        self.task: asyncio.Task[Generation]
        self._abandonment: Abandoned | None = None
        self._interruptible = False

    def abandon(self, reason: str) -> None:
        """Give up phase 2, now or when it is reached. Phases 1 and 3 run to their end."""
        if self._abandonment is None:
            self._abandonment = Abandoned(reason)
            self._on_abandon()
            if self._interruptible:
                self.task.cancel()

    async def interruptible(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await work that `abandon()` may cut short; raises `Abandoned` then."""
        if abandoned := self._given_up():
            work.close()
            raise abandoned
        self._interruptible = True
        try:
            return await work
        except asyncio.CancelledError:
            abandoned = self._given_up()
            if abandoned is None:
                raise
            self.task.uncancel()
            raise abandoned from None
        finally:
            self._interruptible = False

    def _given_up(self) -> Abandoned | None:
        return self._abandonment
