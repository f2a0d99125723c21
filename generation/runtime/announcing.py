"""`generation_stored`: a signal after the commit of a log row, for code that effects can't express.

At least once, whatever dies: with each log row, in its commit, a row is written that says that it
is yet to be announced. Its deletion is in the transaction in which the receivers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import Error, connections, transaction
from django.dispatch import Signal
from django.utils.timezone import now

from generation.effects import Effect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from generation.journal.durable_log import DurableLog
    from generation.models import Announcement
    from generation.records import KeyedRow

logger = logging.getLogger(__name__)

generation_stored = Signal()  # sender: GenerationLog; generation_id: the row's id

LOOK_AGAIN_S = 30.0  # for what another process has left
RETRY_S = 30.0  # after the first failure of a receiver; doubled each time
MAX_TRIES = 10  # within about four hours
CLOSE_S = 5.0


class Announcer:
    """Announces the rows of this process, and those that dead ones have left. It needs receivers:
    without any, nothing is written and nothing is looked for."""

    def __init__(self, log: DurableLog, alias: str) -> None:
        self._log = log
        self._alias = alias
        self._wake = asyncio.Event()
        self._closing = False

    def write(self, keyed: KeyedRow) -> Coroutine[Any, Any, None]:
        """Write a log row as `DurableLog.write()` does."""
        if not generation_stored.receivers:
            return self._log.write(keyed)
        return self._write(keyed)

    async def _write(self, keyed: KeyedRow) -> None:
        due = Effect("generation.Announcement", {"id": str(keyed.row.id)})
        await self._log.write(replace(keyed, effects=(*keyed.effects, due)))
        self._wake.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._closing = True
            self._wake.set()
            await asyncio.wait([task], timeout=CLOSE_S)
            task.cancel()

    async def _run(self) -> None:
        while True:
            is_last = self._closing  # asked before, so that what came last is announced
            if generation_stored.receivers:
                await asyncio.to_thread(self._announce_all)
            if is_last:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._wake.wait()
            self._wake.clear()

    def _announce_all(self) -> None:
        """In a thread, whose connection is closed at the end."""
        try:
            while self._announce_one():
                pass
        except Error as error:
            logger.warning("generation_stored waits for the database: %s", error)
        except Exception:
            logger.exception("generation_stored could not be sent")
        finally:
            connections.close_all()

    def _announce_one(self) -> bool:
        """Returns whether one was due. What the receivers write to this database and the end of the
        announcement are one commit."""
        from generation.models import Announcement, GenerationLog  # needs Django's apps

        due = Announcement.objects.using(self._alias).filter(due_at__lte=now())
        with transaction.atomic(using=self._alias):
            found = due.select_for_update(skip_locked=True).order_by("due_at").first()
            if found is None:
                return False
            try:
                with transaction.atomic(using=self._alias):
                    generation_stored.send(sender=GenerationLog, generation_id=found.pk)
            except Exception as error:  # noqa: BLE001  # a receiver's, which is logged
                self._postpone(found, error)
            else:
                found.delete()
        return True

    def _postpone(self, found: Announcement, error: Exception) -> None:
        found.tries += 1
        if found.tries >= MAX_TRIES:
            logger.error(
                "a receiver of generation_stored failed %d times for %s: given up",
                found.tries,
                found.pk,
                exc_info=error,
            )
            found.delete()
            return
        logger.error("a receiver of generation_stored failed for %s", found.pk, exc_info=error)
        found.due_at = now() + timedelta(seconds=RETRY_S * 2 ** (found.tries - 1))
        found.save()
