"""The room for pages that Django's own handler serves: the admin, the docs, static files, `/`.

Each takes a thread, and most a database connection of the pool that Django has for itself, of four.
Without a bound, 500 strangers at the login start 500 threads, and each generation waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from generation.errors import TooManyInFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from generation.asgi.body import Message, Receive, Send

logger = logging.getLogger(__name__)

AT_WORK = 2
# Beyond those at work. To wait is cheap; a client that is refused at once comes back at once, and
# 500 of those cost generations more (p50 1.2 s) than 500 that wait (37 ms).
WAITING_OR_SENDING = 1_000
WAIT_S = 10.0
SEND_S = 60.0  # for a client that reads its page slowly
# A key in the ASGI scope: what is sent is long, and a client has that time for each part of it.
IN_PARTS = "staccato.in_parts"


# Gives up the place at work of the page that is being made here.
_stop_work: ContextVar[Callable[[], None] | None] = ContextVar("stop_work", default=None)


def step_aside() -> None:
    """Let another page be served while the one that is being made here waits for the database.

    Call it from a view, for at most a few pages at a time: each keeps its thread and connection.
    Elsewhere than in this service, it does nothing.
    """
    stop_work = _stop_work.get()
    if stop_work is not None:
        stop_work()


class StockPlaces:
    def __init__(self) -> None:
        self._at_work = asyncio.Semaphore(AT_WORK)
        self._open = 0

    async def take(self) -> StockPlace:
        """Wait for a place. Raises `TooManyInFlight`."""
        if self._open >= AT_WORK + WAITING_OR_SENDING:
            raise self._refusal()
        self._open += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._at_work.acquire()
        except BaseException as error:
            self._open -= 1
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise
        return StockPlace(self._at_work.release, self._close)

    def _close(self) -> None:
        self._open -= 1

    @staticmethod
    def _refusal() -> TooManyInFlight:
        return TooManyInFlight("too many pages are being served; try again", retry_after=1)


class StockPlace:
    """At work until the response begins, then among those that send."""

    def __init__(self, stop_work: Callable[[], None], close: Callable[[], None]) -> None:
        self._stop_work: Callable[[], None] | None = stop_work
        self._close = close

    async def serve(
        self,
        handler: Callable[..., Awaitable[None]],
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        sending: asyncio.Timeout = asyncio.timeout(None)
        loop = asyncio.get_running_loop()

        def stop_work() -> None:
            loop.call_soon_threadsafe(self._end_work)

        _stop_work.set(stop_work)  # for this task, and for the thread that the view runs in

        async def send_on(message: Message) -> None:
            is_long = scope.get(IN_PARTS, False)
            if message["type"] == "http.response.start":
                self._end_work()
            if is_long or message["type"] == "http.response.start":
                sending.reschedule(asyncio.get_running_loop().time() + SEND_S)
            await send(message)
            if is_long:
                sending.reschedule(None)

        try:
            async with sending:
                await handler(scope, receive, send_on)
        except TimeoutError:
            if not sending.expired():
                raise
            logger.info("a client took more than %d s to read a page", SEND_S)

    def leave(self) -> None:
        self._end_work()
        self._close()

    def _end_work(self) -> None:
        stop_work, self._stop_work = self._stop_work, None
        if stop_work is not None:
            stop_work()
