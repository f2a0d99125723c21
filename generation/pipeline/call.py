"""One generation under way: a task of the process, whose second phase can be abandoned."""

from __future__ import annotations

import asyncio
from sys import getsizeof
from typing import TYPE_CHECKING, Any, TypeVar

from generation.conversation import Image, Text, ToolResult
from generation.errors import AbandonedByClient
from generation.pipeline.relay import Relay
from generation.uuid7 import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from generation.conversation import Part
    from generation.errors import Abandoned
    from generation.limits.meter import Meter
    from generation.pipeline.own_phase import OwnPhase
    from generation.records import Generation, GenerationRequest

Result = TypeVar("Result")


class GenerationCall:
    """The runtime owns its task; the view abandons it when the client leaves."""

    def __init__(
        self,
        request: GenerationRequest,
        on_abandon: Callable[[], None],
        own: OwnPhase | None = None,
    ) -> None:
        self.id = uuid7()  # its row's
        self.request = request
        self.own = own  # None: phase 2 is ours
        self.relay = Relay() if request.is_streamed else None
        self.size = _size_of(request)
        # Phase 1 has passed, so there will be a row; None: nobody waits for it.
        self.begun = asyncio.Event() if request.is_background else None
        self._on_abandon = on_abandon
        self.task: asyncio.Task[Generation]
        # What is reserved for it, which is released with the end of its task, however that comes.
        # None: nothing limits it.
        self.meter: Meter | None = None
        self._abandonment: Abandoned | None = None
        self._interruptible = False

    def abandon(self, reason: Abandoned) -> None:
        """End phase 2 now, or skip it if it is yet to come. Phases 1 and 3 run to their end."""
        if self._abandonment is None:
            self._abandonment = reason
            self._on_abandon()
            if self._interruptible:
                self.task.cancel()

    def cancel(self) -> None:
        """Abandon it because its caller asks for that."""
        self.abandon(AbandonedByClient("its caller has cancelled it"))

    @property
    def has_content(self) -> bool:
        return self.relay is not None and bool(self.relay.events)

    @property
    def is_abandoned(self) -> bool:
        return self._abandonment is not None

    async def interruptible(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await work that `abandon()` may cut short. Raises `Abandoned` then."""
        if abandonment := self._get_abandonment():
            work.close()
            raise abandonment
        self._interruptible = True
        if self.begun is not None:
            self.begun.set()
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


def _size_of(request: GenerationRequest) -> int:
    """Returns the bytes of what is large in a request."""
    if request.verbatim:
        return request.verbatim.bytes
    size = sum(map(getsizeof, (request.input, request.prompt or "", *request.variables.values())))
    return size + sum(_size_of_parts(message.parts) for message in request.messages)


def _size_of_parts(parts: Iterable[Part]) -> int:
    size = 0
    for part in parts:
        match part:
            case ToolResult():
                size += _size_of_parts(part.parts)
            case Image():
                size += getsizeof(part.data) + getsizeof(part.url)
            case Text():
                size += getsizeof(part.text)
            case _:
                size += getsizeof(part)
    return size
