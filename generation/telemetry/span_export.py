"""Sends the spans of stored generations to an OpenTelemetry collector, in batches.

A collector that is slow or away costs no caller anything: what does not fit into the queue, and
what the collector does not take after a few tries, is dropped and counted. The rows are stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from generation.telemetry import metrics, spans
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from generation.conf import Settings
    from generation.records import GenerationRequest, LogRow, UserKey

logger = throttled_logger(__name__)

PATH = "/v1/traces"
QUEUE = 10_000  # generations
QUEUE_BYTES = 33_554_432
BATCH = 512
BATCH_BYTES = 4_194_304
LINGER_S = 1.0  # after a batch's first, for more
PAUSES_S = (0.0, 1.0, 5.0, 15.0)  # before each try
LONGEST_PAUSE_S = 30.0  # that a collector may ask for
AGAIN = frozenset({429, 502, 503, 504})  # by OTLP's specification
TIMEOUT_S = 10.0  # for an answer of the collector
CLOSE_S = 3.0  # for what is left when the process ends


class Answered(Protocol):
    """What the collector said."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after(self) -> float: ...

    @property
    def content(self) -> bytes: ...


class _Entry(NamedTuple):
    """A generation's spans."""

    encoded: bytes
    without_texts: bytes  # empty if there are none in it
    user_id: UserKey | None

    def sent(self, hidden: Collection[UserKey | None]) -> bytes:
        is_hidden = self.without_texts and self.user_id in hidden
        return self.without_texts if is_hidden else self.encoded


class SpanExport:
    """One per process, where there is a collector."""

    def __init__(
        self,
        settings: Settings,
        version: str,
        send: Callable[[bytes], Awaitable[Answered | None]],
        find_forgotten: Callable[[Collection[UserKey]], Awaitable[Collection[UserKey]]],
    ) -> None:
        """`send` returns None if no answer came; it raises nothing. `find_forgotten` returns the
        users of these whose texts are stored no more."""
        self._with_texts = settings.otel_instrumentation_genai_capture_message_content
        self._least = spans.threshold(settings.otel_traces_sampler_arg)
        self._before, self._after = spans.resource(
            settings.otel_service_name, version, settings.otel_resource_attributes
        )
        self._send = send
        self._find_forgotten = find_forgotten
        self._queue: deque[_Entry] = deque()
        self._bytes = 0  # of the queue
        self._first = asyncio.Event()  # something is queued, or nothing will be
        self._enough = asyncio.Event()  # for a batch, or nothing more will come
        self._ending = asyncio.Event()
        self._dropped = metrics.EXPORT_DROPPED.labels("otlp")

    def add(self, row: LogRow, request: GenerationRequest) -> None:
        """Queue the spans of a row that is safe, if its trace is recorded and there is room."""
        if not spans.is_sampled(row.id, request.trace, self._least):
            return
        if len(self._queue) >= QUEUE or self._bytes >= QUEUE_BYTES or self._ending.is_set():
            self._drop(1, "the queue is full")
            return
        verbatim = request.verbatim
        operation = (verbatim.path if verbatim else "") or "chat"
        encoded = spans.encode(row, request.trace, operation, content=False)
        without_texts = b""
        if self._with_texts and spans.keeps_texts(row):
            without_texts = encoded
            encoded = spans.encode(row, request.trace, operation, content=True)
        self._queue.append(
            _Entry(encoded, without_texts, row.user_id if row.author_id is None else row.author_id)
        )
        self._bytes += len(encoded)
        self._first.set()
        if len(self._queue) >= BATCH:
            self._enough.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send until the block ends; what is queued then has `CLOSE_S`."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._ending.set()
            self._first.set()
            self._enough.set()
            await asyncio.wait([task], timeout=CLOSE_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._drop(len(self._queue), "the process ends")

    async def _run(self) -> None:
        while True:
            await self._first.wait()
            if not self._queue and self._ending.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._enough.wait()
            batch = self._take()
            try:
                await self._deliver(batch)
            except asyncio.CancelledError:
                self._drop(len(batch), "the process ends")
                raise
            except Exception:
                logger.exception("spans could not be exported because of a bug")
                self._drop(len(batch), "of a bug")

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        room = BATCH_BYTES
        while self._queue and len(batch) < BATCH and (room > 0 or not batch):
            entry = self._queue.popleft()
            self._bytes -= len(entry.encoded)
            room -= len(entry.encoded)
            batch.append(entry)
        if not self._ending.is_set():
            if not self._queue:
                self._first.clear()
            if len(self._queue) < BATCH:
                self._enough.clear()
        return batch

    async def _deliver(self, batch: list[_Entry]) -> None:
        body = await self._body(batch)
        pause_s, why = 0.0, ""
        for least_s in PAUSES_S:
            if await self._pause(max(pause_s, least_s)):
                break
            answer = await self._send(body)
            if answer is None:
                pause_s, why = 0.0, "the collector does not answer"
            elif 200 <= answer.status < 300:  # HTTP's class of success
                if b"rejectedSpans" in answer.content:  # what is wrong with them, it says
                    logger.warning("the collector refuses spans: %r", answer.content)
                return
            else:
                pause_s, why = answer.retry_after, f"the collector answers {answer.status}"
                if answer.status not in AGAIN:
                    break
        self._drop(len(batch), why)

    async def _pause(self, seconds: float) -> bool:
        """Returns whether the process ends, so that there is no time for pauses."""
        if not seconds:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LONGEST_PAUSE_S)):
                await self._ending.wait()
        return self._ending.is_set()

    async def _body(self, batch: list[_Entry]) -> bytes:
        users = {each.user_id for each in batch if each.without_texts and each.user_id is not None}
        hidden: Collection[UserKey | None] = users
        if users:
            try:
                hidden = await self._find_forgotten(users)
            except Exception as error:  # noqa: BLE001  # without an answer, no text leaves
                logger.warning("spans leave without texts: %s", error)
        return self._before + b",".join(each.sent(hidden) for each in batch) + self._after

    def _drop(self, generations: int, why: str) -> None:
        if generations:
            self._dropped.inc(generations)
            logger.warning("spans of generations were not exported: %s", why)
