"""Many callers, one statement (group commit).

While one flush is under way new items gather, and the next flush takes them together. So a lone
caller waits for no timer, and the batch grows with the load by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from generation.errors import DatabaseUnavailable, RowRefused, StaccatoError
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
OVERTAKE_S = 0.5  # after this a second flush may overtake one that is stuck
CLOSE_S = 5.0  # how long shutdown waits for the last flushes
MAX_FLUSHES = 3  # at once: a stuck database must not take the whole pool

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one statement and of what may wait for one."""

    batch_rows: int
    batch_bytes: int
    queue_rows: int
    queue_bytes: int


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    future: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Turns single items into batches for `flush`, which returns one result per item, in order; a
    `StaccatoError` among them is raised to that item's caller alone.

    Where `flush` raises `RowRefused`, the batch is halved until the row at fault stands alone, so
    that its neighbours succeed.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | StaccatoError]]],
        bounds: Bounds,
        *,
        weigh: Callable[[Item], int],
        linger_s: float = 0.0,
    ) -> None:
        """`weigh` returns about how many bytes an item takes; with `linger_s`, items wait that
        long for others to come."""
        self.name = name
        self._weigh = weigh
        self._linger_s = linger_s
        self._flush = flush
        self._bounds = bounds
        # Ordered and keyed, since a caller that gives up takes its item out at once.
        self._queue: OrderedDict[asyncio.Future[Result], _Waiting[Item, Result]] = OrderedDict()
        self._flushes: set[asyncio.Task[None]] = set()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()
        self._rows_metric = metrics.BATCH_ROWS.labels(name)

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queue an item. Returns a future that is done when the item's batch is.

        Cancelling the future takes the item out if its flush has not begun. Raises
        `DatabaseUnavailable` when the queue is full.
        """
        size = self._weigh(item)
        if (
            len(self._queue) >= self._bounds.queue_rows
            or self._queued_bytes + size > self._bounds.queue_bytes
        ):
            raise DatabaseUnavailable(f"the queue of database {self.name}s is full")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue[future] = _Waiting(item, size, future)
        self._queued_bytes += size
        future.add_done_callback(self._take_out)
        self._wake.set()
        return future

    def _take_out(self, future: asyncio.Future[Result]) -> None:
        waiting = self._queue.pop(future, None)
        if waiting is not None:
            self._queued_bytes -= waiting.size

    async def run(self) -> None:
        """Flush until `close()`, and then until the queue is empty."""
        while True:
            await self._wake.wait()
            if self._linger_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger_s):
                        await self._closed.wait()
            while batch := self._take():
                await self._flush_or_overtake(batch)
            if self._closed.is_set():
                await asyncio.gather(*self._flushes)
                return
            self._wake.clear()

    async def _flush_or_overtake(self, batch: list[_Waiting[Item, Result]]) -> None:
        """Return when the batch is flushed, or when it takes so long that the next may overtake it.

        A connection that is stuck must not stall the flushes on the others.
        """
        flush = asyncio.get_running_loop().create_task(self._settle(batch))
        self._flushes.add(flush)
        flush.add_done_callback(self._flushes.discard)
        await asyncio.wait([flush], timeout=OVERTAKE_S)
        while len(self._flushes) >= MAX_FLUSHES:
            await asyncio.wait(self._flushes, return_when=asyncio.FIRST_COMPLETED)

    def close(self) -> None:
        """Let `run()` end once what is queued has been flushed."""
        self._closed.set()
        self._wake.set()

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        size = 0
        while self._queue and len(batch) < self._bounds.batch_rows:
            future, waiting = self._queue.popitem(last=False)
            if batch and size + waiting.size > self._bounds.batch_bytes:
                self._queue[future] = waiting
                self._queue.move_to_end(future, last=False)
                break
            self._queued_bytes -= waiting.size
            if not future.done():
                batch.append(waiting)
                size += waiting.size
        return batch

    async def _settle(self, batch: list[_Waiting[Item, Result]]) -> None:
        self._rows_metric.observe(len(batch))
        try:
            results = await self._flush([waiting.item for waiting in batch])
        except RowRefused as refusal:
            if len(batch) == 1:
                _fail(batch, refusal)
                return
            middle = len(batch) // 2
            await self._settle(batch[:middle])
            await self._settle(batch[middle:])
        except StaccatoError as error:
            _fail(batch, error)
        except Exception as error:
            # A bug must not end the batcher: every later caller would wait until the restart.
            logger.exception("the %s batch failed", self.name)
            _fail(batch, error)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if isinstance(result, StaccatoError):
                    _fail([waiting], result)
                elif not waiting.future.done():
                    waiting.future.set_result(result)


def _fail(batch: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
            # Its caller may have given up; asyncio would log that nobody looked at the error.
            waiting.future.exception()


@contextlib.asynccontextmanager
async def running(batchers: Sequence[Batcher[Any, Any]]) -> AsyncIterator[None]:
    """Run the batchers as tasks in an empty context, and close them at the end of the block."""
    loop = asyncio.get_running_loop()
    tasks = [
        loop.create_task(batcher.run(), name=batcher.name, context=contextvars.Context())
        for batcher in batchers
    ]
    try:
        yield
    finally:
        for batcher in batchers:
            batcher.close()
        _done, late = await asyncio.wait(tasks, timeout=CLOSE_S)
        for task in late:
            logger.error("the last %s batch did not end in time", task.get_name())
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
