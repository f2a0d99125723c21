"""Opens everything in order at start, closes it in reverse, and owns the tasks.

A generation is a task of the process, not of the connection that asked for it: a client may
leave at any moment, and what is paid for by then must still be written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from prometheus_client import generate_latest

from generation import conf
from generation.api_keys.cache import RECORD_USE_S, ApiKeyCache
from generation.database import sizing
from generation.database.batching import running
from generation.database.engine import Database
from generation.errors import (
    Draining,
    JournalUnavailable,
    RuntimeNotOpen,
    StaccatoError,
    TooManyInFlight,
    release_frames,
)
from generation.journal.durable_log import DurableLog
from generation.llm.client import LLMClient
from generation.pipeline.call import GenerationCall
from generation.pipeline.idempotency import Idempotency
from generation.pipeline.phases import Pipeline
from generation.runtime import resources as limits
from generation.runtime import startup as schema
from generation.store import Store
from generation.telemetry import metrics, totals
from generation.telemetry.durations import Durations
from generation.telemetry.siblings import Siblings
from generation.telemetry.snapshot import PoolPage, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import FrameType

    from generation.conf import Settings
    from generation.records import GenerationRequest

logger = logging.getLogger(__name__)
DRAIN_SLACK_S = 2.0  # for the rows of what the drain limit cut short
PURGE_EVERY_S = 600.0


class Runtime:
    """What one process holds open while it serves."""

    def __init__(
        self, settings: Settings, database: Database, llm: LLMClient, pending_migrations: list[str]
    ) -> None:
        self.settings = settings
        self.database = database
        self.llm = llm
        self.pending_migrations = pending_migrations
        self.store = Store(database, settings)
        self.keys = ApiKeyCache(database, self.store.api_keys, settings.pepper)
        self.idempotency = Idempotency(database, self.store.claims)
        self.log = DurableLog(settings, self.store)
        self.siblings = Siblings(
            f"{Path(settings.journal_dir).resolve()} {database.address}", self.snapshot
        )
        self.calls: set[GenerationCall] = set()
        self.draining = False
        self._entering = 0
        self.peak_in_flight = 0
        self.durations = Durations()  # of the generations that were answered
        self.abandoned = 0  # by their clients, or by a shutdown that could not wait
        self.max_in_flight = limits.carry(settings.max_in_flight)
        self._pipeline = Pipeline(
            settings, database, self.store.profiles, self.idempotency, llm, self.log
        )
        self._loop = asyncio.get_running_loop()
        self._drained: asyncio.Task[None] | None = None

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
        if not (settings.keys_required or django_settings.DEBUG):
            logger.critical(
                "STACCATO_API_KEYS_REQUIRED is off and so is DEBUG: whoever reaches this service"
                " spends your money"
            )
        if settings.default_provider == "simulated":
            logger.warning("the LLM is simulated: its answers are made up here")
        async with contextlib.AsyncExitStack() as stack:
            pending = await schema.prepare(settings.database, sizing.expected_workers())
            stack.push_async_callback(schema.release, settings.database)
            database = await stack.enter_async_context(
                Database.open(
                    settings,
                    connections.settings[settings.database],
                    strict=django_settings.DEBUG,
                )
            )
            llm = await stack.enter_async_context(LLMClient.open(settings))
            runtime = cls(settings, database, llm, pending)
            await stack.enter_async_context(runtime.siblings.answering())
            await stack.enter_async_context(running(runtime.store.batchers))
            await stack.enter_async_context(runtime.log.running())
            await stack.enter_async_context(_repeating(runtime.store.claims.purge, PURGE_EVERY_S))
            stack.push_async_callback(_tolerating(runtime.keys.record_use))
            await stack.enter_async_context(_repeating(runtime.keys.record_use, RECORD_USE_S))
            stack.push_async_callback(runtime.drain)
            stack.enter_context(metrics.collecting(runtime.snapshot))
            stack.enter_context(_on_signal(runtime.begin_to_drain))
            stack.enter_context(_current(runtime))
            yield runtime

    @contextlib.contextmanager
    def entering(self) -> Iterator[None]:
        """A place for a request whose body is still to be read.

        Raises `Draining`, `TooManyInFlight` or `JournalUnavailable`.
        """
        self._admit()
        self._entering += 1
        try:
            yield
        finally:
            self._entering -= 1

    def _admit(self) -> None:
        """The one place that decides whether there is room for another generation."""
        if self.draining:
            raise _refused(Draining("the service is shutting down", retry_after=1))
        if len(self.calls) + self._entering >= self.max_in_flight:
            raise _refused(
                TooManyInFlight(f"{self.max_in_flight} requests are in flight", retry_after=1)
            )
        try:
            self.log.admit()
        except JournalUnavailable as error:
            raise _refused(error) from None

    def start(self, request: GenerationRequest) -> GenerationCall:
        """Begin a generation. Raises as `entering()` does, before anything is spent."""
        self._admit()
        call = GenerationCall(request, self._count_abandoned)
        call.task = asyncio.get_running_loop().create_task(self._pipeline.generate(call))
        self.calls.add(call)
        self.peak_in_flight = max(self.peak_in_flight, len(self.calls))
        call.task.add_done_callback(lambda _task: self._finish(call))
        return call

    def _count_abandoned(self) -> None:
        self.abandoned += 1

    def _finish(self, call: GenerationCall) -> None:
        self.calls.discard(call)
        error = None if call.task.cancelled() else call.task.exception()
        if error is None:
            outcome = "succeeded"
            self.durations.add(time.monotonic() - call.request.started)
        elif isinstance(error, StaccatoError):
            outcome = error.slug
        else:
            outcome = StaccatoError.slug
            logger.error("a generation failed of a bug", exc_info=error)
        release_frames(error)
        metrics.REQUESTS.labels(outcome).inc()

    def begin_to_drain(self) -> None:
        """Take nothing new, and give what is in flight so long to end. Safe in a signal handler.

        uvicorn runs the lifespan's end only after the last response, without a limit of its
        own: waiting for that to begin would be too late.
        """
        self.draining = True
        self._loop.call_soon_threadsafe(self._drain_once)

    async def drain(self) -> None:
        """Returns when nothing is in flight any more."""
        self.draining = True
        await self._drain_once()

    def _drain_once(self) -> asyncio.Task[None]:
        if self._drained is None:
            self._drained = self._loop.create_task(self._drain())
        return self._drained

    async def _drain(self) -> None:
        if not self.calls:
            return
        logger.info("draining: %d generations in flight", len(self.calls))
        pending = await _wait(self.calls, self.settings.drain_seconds)
        if pending:
            logger.warning("drain limit passed: %d generations are abandoned", len(pending))
            for call in pending:
                call.abandon("the service shut down before the LLM answered")
            await _wait(pending, self.settings.write_timeout + DRAIN_SLACK_S)

    def snapshot(self) -> Snapshot:
        """Returns the figures of this process."""
        return Snapshot(
            **vars(self.database.pool.snapshot()),
            requests_in_flight=len(self.calls),
            peak_requests_in_flight=self.peak_in_flight,
            max_requests_in_flight=self.max_in_flight,
            requests_abandoned=self.abandoned,
            requests_answered=self.durations.summary(),
            overhead=self._pipeline.overhead.summary(),
            llm_calls_in_flight=self.llm.in_flight,
            journal=self.log.snapshot(),
        )

    async def pool_page(self) -> PoolPage:
        """Returns the figures of this process, and those of all processes summed."""
        return PoolPage.of(os.getpid(), await self.siblings.snapshots())

    async def metrics(self) -> bytes:
        """Returns the metrics of all processes in Prometheus' text format."""
        answers, retired = await self.siblings.metrics()
        if retired is None:
            return generate_latest()
        return totals.expose(os.getpid(), answers, retired)


_runtime: Runtime | None = None


def current() -> Runtime:
    """The open runtime of this process. Raises `RuntimeNotOpen`."""
    if _runtime is None:
        raise RuntimeNotOpen(
            "the ASGI lifespan did not run, so nothing is open: serve the application that"
            " generation.asgi.get_application() makes with uvicorn, and without `--lifespan off`;"
            " Django's own runserver does not run it"
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
        raise ImproperlyConfigured("; ".join(map(_in_a_line, serious)))
    for message in found:
        logger.warning("%s", _in_a_line(message))


def _in_a_line(message: checks.CheckMessage) -> str:
    return f"{message.id}: {message.msg} {message.hint or ''}".strip()


def _refused(error: StaccatoError) -> StaccatoError:
    metrics.REQUESTS.labels(error.slug).inc()
    return error


async def _wait(calls: set[GenerationCall], seconds: float) -> set[GenerationCall]:
    """The calls that are still under way after so many seconds."""
    calls = set(calls)
    await asyncio.wait([call.task for call in calls], timeout=seconds)
    return {call for call in calls if not call.task.done()}


@contextlib.asynccontextmanager
async def _repeating(work: Callable[[], Awaitable[None]], every_s: float) -> AsyncIterator[None]:
    """Do some housekeeping now and again; its failure is the next time's business."""
    tolerant = _tolerating(work)

    async def repeat() -> None:
        while True:
            await tolerant()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tolerating(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def tolerant() -> None:
        try:
            await work()
        except StaccatoError as error:
            logger.info("housekeeping is put off: %s", error)

    return tolerant


@contextlib.contextmanager
def _on_signal(begin: Callable[[], None]) -> Iterator[None]:
    """Call `begin` when the server is told to stop, before the server's own handler."""
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
