"""Opens everything in order at start, closes it in reverse, and owns the tasks.

A generation is a task of the process, not of the connection that asked for it: a client may
leave at any moment, and what is paid for by then must still be written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from generation import conf, limits, metrics, schema
from generation.call import Call
from generation.database import Database
from generation.errors import Draining, RuntimeNotOpen, StaccatoError, TooManyInFlight
from generation.llm.client import LLMClient
from generation.pipeline import Pipeline
from generation.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import FrameType

    from generation.conf import Settings
    from generation.records import GenerationRequest

logger = logging.getLogger(__name__)
BATCHERS_CLOSE_S = 5.0  # how long shutdown waits for the last flushes


class Runtime:
    """What one process holds open while it serves."""

    def __init__(
        self, settings: Settings, database: Database, store: Store, llm: LLMClient
    ) -> None:
        self.settings = settings
        self.database = database
        self.llm = llm
        self.calls: set[Call] = set()
        self.draining = False
        self.peak_in_flight = 0
        self.abandoned = 0  # by their clients, or by a shutdown that could not wait
        self.pending_migrations: list[str] = []
        self.max_in_flight = limits.carry(settings.max_in_flight)
        self._pipeline = Pipeline(settings, database, store, llm)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Runtime]:
        """Everything a generation needs, in the running loop.

        Raises `ImproperlyConfigured` where a system check tagged `staccato` fails.
        """
        if _runtime is not None:
            raise RuntimeError("this process has an open runtime already")
        _check()
        settings = conf.load()
        async with contextlib.AsyncExitStack() as stack:
            pending = await schema.prepare(settings.database)
            stack.push_async_callback(schema.release, settings.database)
            database = await stack.enter_async_context(
                Database.open(settings, strict=django_settings.DEBUG)
            )
            llm = await stack.enter_async_context(LLMClient.open(settings))
            store = Store(database, settings)
            await stack.enter_async_context(_running(store))
            runtime = cls(settings, database, store, llm)
            runtime.pending_migrations = pending
            stack.push_async_callback(runtime.drain)
            stack.enter_context(metrics.collecting(runtime.statistics))
            stack.enter_context(_drain_on_signal(runtime))
            stack.enter_context(_current(runtime))
            yield runtime

    def start(self, request: GenerationRequest) -> Call:
        """Begin a generation. Raises `Draining` or `TooManyInFlight` before anything is spent."""
        if self.draining:
            raise _refused(Draining("the service is shutting down", retry_after=1))
        if len(self.calls) >= self.max_in_flight:
            raise _refused(
                TooManyInFlight(f"{self.max_in_flight} requests are in flight", retry_after=1)
            )
        call = Call(request, self._count_abandoned)
        call.task = asyncio.get_running_loop().create_task(self._pipeline.generate(call))
        self.calls.add(call)
        self.peak_in_flight = max(self.peak_in_flight, len(self.calls))
        call.task.add_done_callback(lambda _task: self._finish(call))
        return call

    def _count_abandoned(self) -> None:
        self.abandoned += 1

    def _finish(self, call: Call) -> None:
        self.calls.discard(call)
        error = None if call.task.cancelled() else call.task.exception()
        if error is None:
            outcome = "succeeded"
        elif isinstance(error, StaccatoError):
            outcome = error.slug
        else:
            outcome = StaccatoError.slug
            logger.error("a generation failed of a bug", exc_info=error)
        metrics.REQUESTS.labels(outcome).inc()

    async def drain(self) -> None:
        """Take nothing new and wait for what is in flight; abandon what takes too long."""
        self.draining = True
        if not self.calls:
            return
        logger.info("draining: %d generations in flight", len(self.calls))
        pending = await _wait(self.calls, self.settings.drain_timeout)
        if pending:
            logger.warning("drain limit passed: %d generations are abandoned", len(pending))
            for call in pending:
                call.abandon("the service shut down before the LLM answered")
            await _wait(pending, self.settings.write_timeout + 1)

    def statistics(self) -> dict[str, Any]:
        """The pool and the LLM calls of this process, as /api/v1/pool shows them."""
        return {
            "process": os.getpid(),
            **self.database.pool.statistics(),
            "requests_in_flight": len(self.calls),
            "peak_requests_in_flight": self.peak_in_flight,
            "max_requests_in_flight": self.max_in_flight,
            "requests_abandoned": self.abandoned,
            "llm_calls_in_flight": self.llm.in_flight,
        }


_runtime: Runtime | None = None


def current() -> Runtime:
    """The open runtime of this process. Raises `RuntimeNotOpen`."""
    if _runtime is None:
        raise RuntimeNotOpen(
            "the ASGI lifespan did not run, so nothing is open: serve project.asgi:application"
            " with uvicorn and without `--lifespan off`, or use manage.py runserver"
        )
    return _runtime


@contextlib.contextmanager
def _current(runtime: Runtime) -> Iterator[None]:
    global _runtime  # noqa: PLW0603  # one process, one loop, one runtime
    _runtime = runtime
    try:
        yield
    finally:
        _runtime = None


def _check() -> None:
    """Refuse to open on what the system checks tagged `staccato` call an error."""
    found = checks.run_checks(tags=["staccato"], include_deployment_checks=True)
    serious = [message for message in found if message.is_serious()]
    if serious:
        raise ImproperlyConfigured(
            "; ".join(f"{message.id}: {message.msg} {message.hint or ''}" for message in serious)
        )


def _refused(error: StaccatoError) -> StaccatoError:
    metrics.REQUESTS.labels(error.slug).inc()
    return error


async def _wait(calls: set[Call], seconds: float) -> set[Call]:
    """The calls that are still under way after so many seconds."""
    calls = set(calls)
    await asyncio.wait([call.task for call in calls], timeout=seconds)
    return {call for call in calls if not call.task.done()}


@contextlib.asynccontextmanager
async def _running(store: Store) -> AsyncIterator[None]:
    """The store's batchers as tasks that keep no caller's context."""
    loop = asyncio.get_running_loop()
    tasks = [
        loop.create_task(batcher.run(), name=batcher.name, context=contextvars.Context())
        for batcher in store.batchers
    ]
    try:
        yield
    finally:
        for batcher in store.batchers:
            batcher.close()
        _done, late = await asyncio.wait(tasks, timeout=BATCHERS_CLOSE_S)
        for task in late:
            logger.error("the last %s batch was not flushed: it is lost", task.get_name())
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _drain_on_signal(runtime: Runtime) -> Iterator[None]:
    """Begin to drain when the server is told to stop.

    uvicorn runs the lifespan's end only after the last response, so waiting for that would
    leave /readyz saying yes all the while.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}

    def begin(number: int, frame: FrameType | None) -> None:
        runtime.draining = True
        handler = previous[number]
        if callable(handler):
            handler(number, frame)

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        handler = signal.getsignal(number)
        # Only a server's own handler is wrapped: the default ones end the process at once.
        if callable(handler) and handler is not signal.default_int_handler:
            previous[number] = handler
            signal.signal(number, begin)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is begin:
                signal.signal(number, handler)
