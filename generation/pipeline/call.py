"""One generation under way: a task of the process, whose second phase can be abandoned."""

from __future__ import annotations

import asyncio
from sys import getsizeof
from typing import TYPE_CHECKING, Any, TypeVar

from generation.errors import Abandoned

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from generation.records import Generation, GenerationRequest

Result = TypeVar("Result")


class GenerationCall:
    """The runtime owns its task; the view abandons it when the client leaves."""

    def __init__(self, request: GenerationRequest, on_abandon: Callable[[], None]) -> None:
        self.request = request
        texts = (request.input, *request.variables.values())
        self.size = sum(map(getsizeof, texts))  # in bytes, without what is small
        self._on_abandon = on_abandon
        self.task: asyncio.Task[Generation]
        self._abandonment: Abandoned | None = None
        self._interruptible = False

    def abandon(self, reason: str) -> None:
        """End phase 2 now, or skip it if it is yet to come. Phases 1 and 3 run to their end."""
        if self._abandonment is None:
            self._abandonment = Abandoned(reason)
            self._on_abandon()
            if self._interruptible:
                self.task.cancel()

    async def interruptible(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await work that `abandon()` may cut short. Raises `Abandoned` then."""
        if abandonment := self._get_abandonment():
            work.close()
            raise abandonment
        self._interruptible = True
        try:
            return await work
        except asyncio.CancelledError:
            abandonment = self._get_abandonment()
            if abandonment is None:
                raise
            self.task.uncancel()
            raise abandonment from None
        finally:
            self._interruptible = False

    def _get_abandonment(self) -> Abandoned | None:
        """A method, because mypy would take the attribute to be unchanged across the await."""
        return self._abandonment
