"""Who hears that a budget is nearly used: the log, and a webhook. Once for each threshold and
window, whichever process sees it first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from generation.errors import StaccatoError
from generation.limits.refusals import written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from generation.limits.blocks import Block
    from generation.store.limits import LimitTables

logger = logging.getLogger(__name__)

LEVELS = (100, 80, 50)  # per cent
QUEUE = 1000
CLOSE_S = 2.0


class Alert(NamedTuple):
    block: Block
    level: int
    document: dict[str, Any]  # as it stood


class Alerts:
    """`send` takes an alert's document, e.g. to a webhook. It raises nothing."""

    def __init__(
        self, tables: LimitTables, send: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    ) -> None:
        self._tables = tables
        self._send = send
        self._queue: asyncio.Queue[Alert] = asyncio.Queue(QUEUE)

    def note_used(self, block: Block, *, is_refused: bool = False) -> None:
        """Look at what is used of a budget. One that refuses a call counts as used up."""
        amount = block.amount
        if not (block.rule.is_budget and amount and block.window_id is not None):
            return
        percent = 100 if is_refused else block.used * 100 // amount
        level = next((each for each in LEVELS if percent >= each), 0)
        if level > block.alerted:
            block.alerted = level
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait(Alert(block, level, document(block, level)))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._queue.join()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            alert = await self._queue.get()
            try:
                await self._report(alert)
            except StaccatoError as error:
                logger.info("an alert is postponed: %s", error)
                alert.block.alerted = 0  # the next answer of PostgreSQL says what was sent
            except Exception:
                logger.exception("an alert failed")
            finally:
                self._queue.task_done()

    async def _report(self, alert: Alert) -> None:
        block, level, said = alert
        assert block.window_id is not None, "nothing is used of a window that is not there"
        if not await self._tables.alert(block.window_id, level):
            return
        logger.warning(
            "%d %% of %s are used%s: %s of %s",
            level,
            said["policy"],
            f" ({said['scope']} {said['subject']})" if said["subject"] else "",
            said["used"],
            said["limit"],
        )
        if self._send is not None:
            await self._send(said)


def document(block: Block, level: int) -> dict[str, Any]:
    rule, end = block.rule, block.window.end
    return {
        "policy": rule.name,
        "limit_id": rule.id,
        "scope": rule.scope,
        "subject": rule.owner or block.subject or None,
        "unit": rule.unit,
        "window": rule.window,
        "per_cent": level,
        "limit": written(block.amount, rule.unit),
        "used": written(block.used, rule.unit),
        "window_start": block.window.start.isoformat(),
        "resets_at": end.isoformat() if end else None,
        "is_enforced": rule.is_enforced,
    }
