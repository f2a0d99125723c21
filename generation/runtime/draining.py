"""Draining: take no new generations, and let those in flight end before the process stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

from generation.errors import AbandonedByShutdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from generation.conf import Settings
    from generation.pipeline.call import GenerationCall
    from generation.runtime.admission import Admission

logger = logging.getLogger(__name__)

WRITE_SLACK_S = 2.0  # on top of WRITE_TIMEOUT, for the rows of abandoned generations


class Drain:
    """The end of one process's generations. Build it in the event loop that runs them."""

    def __init__(self, admission: Admission, settings: Settings) -> None:
        self._admission = admission
        self._limit_s = settings.drain_seconds
        self._write_limit_s = settings.write_timeout + WRITE_SLACK_S
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Admit nothing new, and start the clock for what is in flight. Safe in a signal handler.

        uvicorn ends the lifespan only after the last response, and without a limit: to begin
        there would be too late.
        """
        self._admission.draining = True
        self._loop.call_soon_threadsafe(self._run_once)

    async def finish(self) -> None:
        """Returns when nothing is in flight any more."""
        self._admission.draining = True
        await self._run_once()

    def _run_once(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = self._loop.create_task(self._run())
        return self._task

    async def _run(self) -> None:
        self._admission.refusal_pace.end()
        calls = set(self._admission.calls.values())
        if not calls:
            return
        logger.info("draining: %d generations in flight", len(calls))
        pending = await _wait(calls, self._limit_s)
        if pending:
            logger.warning("drain limit passed: %d generations are abandoned", len(pending))
            for call in pending:
                call.abandon(
                    AbandonedByShutdown("the service shut down before the answer was complete")
                )
            await _wait(pending, self._write_limit_s)


async def _wait(calls: set[GenerationCall], seconds: float) -> set[GenerationCall]:
    """Returns the calls that have not ended after so many seconds."""
    await asyncio.wait([call.task for call in calls], timeout=seconds)
    return {call for call in calls if not call.task.done()}


@contextlib.contextmanager
def on_stop_signal(begin: Callable[[], None]) -> Iterator[None]:
    """Call `begin` when the server gets a signal to stop, before the server's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        begin()
        previous[number](number, frame)

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        handler = signal.getsignal(number)
        # Only a server's own handler is wrapped: the default ones end the process at once.
        if callable(handler) and handler is not signal.default_int_handler:
            previous[number] = handler
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)
