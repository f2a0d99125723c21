"""The runtime for code that no lifespan serves: opened at its first use, in an event loop of its
own in a thread of its own.

So it outlives each loop that asks, in any kind of process: daphne, a synchronous server, a
command. A forked process opens its own.
"""

# ruff: noqa: PLW0603  # one process, one runtime
from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  # it registers its end first, see below
import contextvars
import logging
import os
import threading
from concurrent.futures import Future

from generation.runtime import process
from generation.runtime.process import Runtime

logger = logging.getLogger(__name__)

CLOSE_SLACK_S = 10.0  # for what closes after the drain


class LoopThread:
    def __init__(self) -> None:
        self.opened: Future[Runtime] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        # A context of its own: a request's would live as long as the process. It is a daemon, since
        # it is closed at the exit, and must not keep a process that is not asked to close it.
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(self._run,), name="staccato", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # who waits for the runtime gets it
            if self.opened.done():
                logger.exception("the runtime ended with an error")
            else:
                self.opened.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Runtime.open() as runtime:
            self.opened.set_result(runtime)
            await self._stop.wait()

    def close(self) -> None:
        """Returns when the generations in flight have ended and everything is closed."""
        if self._thread.is_alive() and self.opened.done() and not self.opened.exception():
            runtime = self.opened.result()
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(runtime.settings.drain_seconds + CLOSE_SLACK_S)


_thread: LoopThread | None = None
_lock = threading.Lock()
_inherited: list[LoopThread] = []  # from a parent process: never finalized, since all is its


def runtime() -> Runtime:
    """Returns the runtime of this process; opens it if need be. For threads without a loop.

    Raises `ImproperlyConfigured`, or what else keeps it from opening.
    """
    return process.opened() or _opening().result()


async def aruntime() -> Runtime:
    """The same, for async code."""
    found = process.opened()
    if found is not None:
        return found
    return await asyncio.shield(asyncio.wrap_future(_opening()))


def close() -> None:
    """Close the runtime of this process, if it was opened here; the next use opens another."""
    global _thread
    with _lock:
        closing, _thread = _thread, None
    if closing is not None:
        closing.close()


def _opening() -> Future[Runtime]:
    global _thread
    with _lock:
        if _thread is None or (_thread.opened.done() and _thread.opened.exception()):
            _thread = LoopThread()
        return _thread.opened


def _forget_parents() -> None:
    global _thread, _lock
    if _thread is not None:
        _inherited.append(_thread)
    _thread, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_parents)
# `atexit` comes too late: thread pools end before, and the journal needs one. Those that were
# registered last are called first, so the pools' module has to be imported above.
getattr(threading, "_register_atexit", atexit.register)(close)
