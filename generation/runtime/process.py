"""What one process holds open while it serves: opened in order, closed in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import orjson
from django.conf import settings as django_settings
from django.db import connections
from prometheus_client import generate_latest

from generation import conf
from generation.api_keys.cache import RECORD_USE_S, ApiKeyCache
from generation.database.batching import running
from generation.database.engine import Database
from generation.errors import RuntimeNotOpen
from generation.journal.durable_log import DurableLog
from generation.limits.ledger import TICK_S
from generation.limits.limits import Limits
from generation.limits.policies import REFRESH_S
from generation.llm.client import LLMClient
from generation.llm.posting import Post
from generation.llm.webhook import Webhook
from generation.partitions.maintenance import LogMaintenance
from generation.pipeline.idempotency import Idempotency
from generation.pipeline.phases import Pipeline
from generation.privacy.hashing import KeyedHash
from generation.privacy.policy import ContentPolicy
from generation.records import KeyRef
from generation.rollups.upkeep import Rollups
from generation.runtime import server, startup
from generation.runtime.admission import Admission
from generation.runtime.announcing import Announcer
from generation.runtime.draining import Drain, on_stop_signal
from generation.runtime.housekeeping import repeating, tolerating
from generation.runtime.probe import DatabaseProbe
from generation.runtime.resources import requests_allowed
from generation.store import Store
from generation.telemetry import metrics, span_export, totals
from generation.telemetry.history import EVERY_S, History, summed
from generation.telemetry.reporting import Reporter
from generation.telemetry.siblings import Running, Siblings
from generation.telemetry.snapshot import PoolPage, Snapshot
from generation.telemetry.span_export import SpanExport
from generation.telemetry.watching import Recent, Watchers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Any
    from uuid import UUID

    from generation.conf import Settings
    from generation.pipeline.call import GenerationCall
    from generation.pipeline.own_phase import OwnPhase
    from generation.records import GenerationRequest

Result = TypeVar("Result")

TIDY_EVERY_S = 600.0
ROLL_UP_EVERY_S = 30.0


class Runtime:
    """The parts of one process, connected."""

    def __init__(
        self, settings: Settings, database: Database, llm: LLMClient, pending_migrations: list[str]
    ) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.database = database
        self.llm = llm
        self.store = Store(database, settings)
        self.maintenance = LogMaintenance(database, settings)
        self.rollups = Rollups(database, settings)
        self.database_probe = DatabaseProbe(self.store, pending_migrations)
        self.log = DurableLog(settings, self.store)
        self.announcer = Announcer(self.log, settings.database)
        fingerprints = KeyedHash(settings.pepper, "staccato.idempotency")
        self.idempotency = Idempotency(database, self.store.claims, self.log, fingerprints)
        self.content = ContentPolicy(settings)
        webhook = Webhook(settings, llm.transport) if settings.limit_webhook else None
        send = webhook.send if webhook else None
        self.limits = Limits(settings, database, self.store, llm, send)
        self.keys = ApiKeyCache(database, self.store.api_keys, settings.pepper, self.limits.refresh)
        self.span_export = _span_export(settings, llm, self.store)
        self.reporter = Reporter(llm.targets, self.span_export)
        self.pipeline = Pipeline(
            settings,
            database,
            self.store.profiles,
            self.idempotency,
            llm,
            self.announcer,
            self.content,
            self.limits,
            self.reporter.report,
        )
        self.admission = Admission(
            requests_allowed(settings.max_in_flight),
            settings.max_bytes_in_flight,
            self.pipeline.generate,
            self.log.admit,
            self.limits.refuse_early,
        )
        self.drain = Drain(self.admission, settings)
        self._unexpose: Callable[[], None] = lambda: None
        self.history = History(self._at_once)
        self.siblings = Siblings(
            f"{Path(settings.journal_dir).resolve()} {database.address}",
            self.snapshot,
            look=self._look,
            history=self.history.points,
        )
        self.pool_json = Recent(self._pool_json)
        self.history_json = Recent(self._history_json)
        self.pool_watchers = Watchers()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Runtime]:
        """Everything a generation needs, in the running loop.

        Raises `ImproperlyConfigured` if a system check tagged `staccato` fails.
        """
        if _runtime is not None:
            raise RuntimeError("this process already has an open runtime")
        startup.run_checks()
        settings = conf.load()
        startup.warn_about(settings)
        async with contextlib.AsyncExitStack() as stack:
            # First in, last out: what later parts call, they find open, also while they close.
            # A look at the database through Django, and the end of Django's own connections.
            pending = await startup.prepare(settings, server.expected_workers())
            stack.push_async_callback(startup.release, settings.database)
            # What generations need: the pool and the HTTP client.
            database = await stack.enter_async_context(
                Database.open(
                    settings,
                    connections.settings[settings.database],
                    strict=django_settings.DEBUG,
                )
            )
            llm = await stack.enter_async_context(LLMClient.open(settings))
            runtime = cls(settings, database, llm, pending)
            # The siblings may ask for our figures until everything that counts has ended.
            await stack.enter_async_context(runtime.siblings.answering())
            # The batchers: whatever is entered below may still submit to them while it closes.
            batchers = (*runtime.store.batchers, *runtime.limits.ledger.batchers)
            await stack.enter_async_context(running(batchers))
            # The journal: it takes the rows that the batchers can't store, up to the last.
            await stack.enter_async_context(runtime.log.running())
            await stack.enter_async_context(runtime.announcer.running())
            # What is reported of rows that are safe: it needs the pool and the HTTP client.
            if runtime.span_export:
                await stack.enter_async_context(runtime.span_export.running())
            # Housekeeping. Key use is recorded one last time, after the drain.
            await stack.enter_async_context(repeating(runtime.tidy_up, TIDY_EVERY_S))
            await stack.enter_async_context(repeating(runtime.rollups.run, ROLL_UP_EVERY_S))
            stack.push_async_callback(tolerating(runtime.keys.record_use))
            await stack.enter_async_context(repeating(runtime.keys.record_use, RECORD_USE_S))
            await stack.enter_async_context(
                repeating(runtime.idempotency.renew, runtime.store.claims.lease_s / 3)
            )
            stack.push_async_callback(runtime.idempotency.close)
            # Limits: read before the first call. What is free of the leases goes back at the end.
            await stack.enter_async_context(runtime.limits.alerts.running())
            stack.push_async_callback(runtime.limits.ledger.close)
            await tolerating(runtime.limits.refresh)()
            await stack.enter_async_context(repeating(runtime.limits.refresh, REFRESH_S))
            await stack.enter_async_context(repeating(runtime.limits.tick, TICK_S))
            # For the live page, which also shows how a drain goes.
            await stack.enter_async_context(repeating(runtime.history.note, EVERY_S))
            # Closing begins here: no new generations, and those in flight end with all above open.
            stack.push_async_callback(runtime.drain.finish)
            # What the world sees of us: gauges, signals, and `current()`.
            runtime._unexpose = stack.enter_context(metrics.exposing_gauges(runtime.snapshot))
            stack.enter_context(on_stop_signal(runtime.drain.begin))
            stack.enter_context(override(runtime))
            startup.announce(settings, database.address)
            yield runtime

    def find(self, generation_id: UUID) -> GenerationCall | None:
        """Returns a generation that runs in this process."""
        return self.admission.calls.get(generation_id)

    def _look(self, generation_id: UUID, ends: bool) -> Running | None:  # noqa: FBT001  # the siblings' question
        """Describe a generation to another process, and cancel it if that asks for it."""
        call = self.find(generation_id)
        if call is None:
            return None
        if ends:
            call.cancel()
        request = call.request
        return Running(request.user_id, request.model, call.has_content, request.is_background)

    def join(self, request: GenerationRequest) -> GenerationCall | None:
        """Returns the stream of this process that the same request, sent again under its
        Idempotency-Key, may read too. Raises `IdempotencyKeyReused` if it is not the same."""
        if not request.idempotency_key:
            return None
        call = self.admission.find_stream(KeyRef(request.user_id, request.idempotency_key))
        if call is not None:
            self.idempotency.require_same(request, call.request)
        return call

    def start(self, request: GenerationRequest, own: OwnPhase | None = None) -> GenerationCall:
        """Begin a generation that code in this process asks for, or join the stream that runs under
        its key. Call it in the runtime's loop. Raises what `join()` and a place's `start()` do."""
        if call := self.join(request):
            return call
        with self.admission.enter() as place:
            return place.start(request, own)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run it in the runtime's loop, from a thread that has none. Raises what it raises, and
        `RuntimeNotOpen` if the runtime was closed meanwhile."""
        self._require_open(work)
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # e.g. Ctrl-C; does nothing if the work has ended
            raise

    async def arun(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await it in the runtime's loop, from whichever loop. Raises what `run()` does."""
        self._require_open(work)
        if asyncio.get_running_loop() is self.loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def _require_open(self, work: Coroutine[Any, Any, object]) -> None:
        if self.loop.is_closed():
            work.close()
            raise RuntimeNotOpen("the process is ending: its runtime has been closed")

    def forget(self) -> None:
        """After a fork: leave everything to the parent, which goes on with it."""
        global _runtime  # noqa: PLW0603  # one process, one loop, one runtime
        # Never finalized, since their sockets are the parent's.
        _inherited.extend((self, startup.leave_pool_to_parent(self.settings.database)))
        _runtime = None
        self.log.leave_to_parent()
        self._unexpose()

    async def tidy_up(self) -> None:
        """Drop what is past its retention, and make room for what comes: one after the other, on
        one connection. Raises nothing."""
        for work in (
            self.maintenance.run,
            self.store.claims.purge,
            self.settle_held_results,
            self.store.usage.purge,
            self.rollups.purge,
            self.limits.tidy,
        ):
            await tolerating(work)()

    async def settle_held_results(self) -> None:
        """Reduce the results that were whole for the repetitions of their requests."""
        await self.store.held_results.settle(self.content.settle)

    def snapshot(self) -> Snapshot:
        """Returns the figures of this process."""
        return Snapshot(
            **vars(self.database.pool.snapshot()),
            requests_in_flight=len(self.admission.calls),
            peak_requests_in_flight=self.admission.peak,
            max_requests_in_flight=self.admission.limit,
            requests_abandoned=self.admission.abandoned,
            requests_answered=self.admission.answered.summary(),
            overhead=self.pipeline.overhead.summary(),
            llm_calls_in_flight=self.llm.in_flight,
            open_circuits=self.llm.open_circuits,
            draining=int(self.admission.draining),
            journal=self.log.snapshot(),
        )

    async def _pool_json(self) -> bytes:
        """Returns the figures of this process, and those of all processes summed."""
        page = PoolPage.of(os.getpid(), await self.siblings.snapshots())
        return orjson.dumps(page.as_json())

    def _at_once(self) -> tuple[int, int]:
        return len(self.admission.calls), self.database.pool.checkedout()

    async def _history_json(self) -> bytes:
        """Returns what all processes had in flight at each of the last 120 seconds."""
        return orjson.dumps(summed(await self.siblings.histories()))

    async def metrics(self) -> bytes:
        """Returns the metrics of all processes in Prometheus' text format."""
        answers, retired = await self.siblings.metrics()
        if retired is None:
            return generate_latest()
        return totals.expose(os.getpid(), answers, retired)


def _span_export(settings: Settings, llm: LLMClient, store: Store) -> SpanExport | None:
    """Returns None where there is no collector."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    send = Post(
        "the collector of traces",
        settings.otel_exporter_otlp_endpoint + span_export.PATH,
        llm.transport,
        timeout_s=span_export.TIMEOUT_S,
        headers=conf.parse_otel_pairs(settings.otel_exporter_otlp_headers.get_secret_value()),
    )
    return SpanExport(settings, startup.VERSION, send, store.forgotten_among)


_runtime: Runtime | None = None
_inherited: list[object] = []  # from a parent process


def _forget_parents() -> None:
    if _runtime is not None:
        _runtime.forget()


os.register_at_fork(after_in_child=_forget_parents)

HOW_TO_SERVE = (
    "nothing is open: the ASGI lifespan did not run, or the log says what kept it; serve the"
    " application that generation.asgi.get_application() returns, in place of Django's own"
)


def opened() -> Runtime | None:
    """Returns the open runtime of this process."""
    return _runtime


def current() -> Runtime:
    """The open runtime of this process. Raises `RuntimeNotOpen`."""
    if _runtime is None:
        raise RuntimeNotOpen(HOW_TO_SERVE)
    return _runtime


@contextlib.contextmanager
def override(runtime: Runtime) -> Iterator[None]:
    """Make it the runtime of this process while the block runs."""
    global _runtime  # noqa: PLW0603  # one process, one loop, one runtime
    previous, _runtime = _runtime, runtime
    try:
        yield
    finally:
        _runtime = previous
