"""Many callers, one statement.

While one flush is under way new items gather; when it is done they leave together. A lone
caller therefore waits for no timer, and the batch grows with the load by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from generation import metrics
from generation.errors import DatabaseUnavailable, RowRefused, StaccatoError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

logger = logging.getLogger(__name__)
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
    """Turns single items into batches for `flush`, which returns one result per item, in order.

    `flush` raises `RowRefused` where the data of some row is at fault; the batch is then
    halved until the row stands alone, so that its neighbours succeed.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        bounds: Bounds,
    ) -> None:
        self.name = name
        self._flush = flush
        self._bounds = bounds
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._rows_metric = metrics.BATCH_ROWS.labels(name)

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, item: Item, size: int = 0) -> asyncio.Future[Result]:
        """Queue an item of about `size` bytes; the future is done when its batch is.

        Cancelling the future takes the item out if its flush has not begun. Raises
        `DatabaseUnavailable` when the queue is full.
        """
        if (
            len(self._queue) >= self._bounds.queue_rows
            or self._queued_bytes + size > self._bounds.queue_bytes
        ):
            raise DatabaseUnavailable(f"the queue of database {self.name}s is full")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, size, future))
        self._queued_bytes += size
        self._wake.set()
        return future

    async def run(self) -> None:
        """Flush until `close()`; returns when the queue is empty then."""
        while True:
            await self._wake.wait()
            while batch := self._take():
                await self._settle(batch)
            if self._closing:
                return
            self._wake.clear()

    def close(self) -> None:
        """Let `run()` end after what is queued has been flushed."""
        self._closing = True
        self._wake.set()

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        size = 0
        while self._queue and len(batch) < self._bounds.batch_rows:
            if batch and size + self._queue[0].size > self._bounds.batch_bytes:
                break
            waiting = self._queue.popleft()
            self._queued_bytes -= waiting.size
            if not waiting.future.done():
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
            # A bug must not end the batcher: every later caller would wait for ever.
            logger.exception("the %s batch failed", self.name)
            _fail(batch, error)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(result)


def _fail(batch: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
