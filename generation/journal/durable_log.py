"""Phase 3's promise: an answer that was paid for is kept, whatever the database does.

A row goes to PostgreSQL. Where that does not take it in time it goes to the journal, and from
there to PostgreSQL once that is back. A row that PostgreSQL refuses is set aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from generation.database.batching import Batcher, Bounds
from generation.errors import DatabaseUnavailable, RowRefused, StaccatoError
from generation.journal.dead_letters import RefusedRows
from generation.journal.spool import UnstoredRows
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from generation.conf import Settings
    from generation.records import LogRow
    from generation.store.logs import Store
    from generation.telemetry.snapshot import JournalSnapshot

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # between looks whether the database is back
LOOK_AROUND_S = 5.0  # between looks for the journals of processes that died

_MIB = 1024 * 1024
APPEND_BOUNDS = Bounds(
    batch_rows=500, batch_bytes=8 * _MIB, queue_rows=100_000, queue_bytes=1024 * _MIB
)


class DurableLog:
    """Writes log rows. One per process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._write_timeout = settings.write_timeout
        self._store = store
        self._unstored = UnstoredRows(settings)
        self._refused: RefusedRows | None = None  # known once the database has been reached
        self._refused_count = 0
        self._appends: Batcher[LogRow, None] = Batcher("journal", self._append, APPEND_BOUNDS)
        self._work = asyncio.Event()
        self._closing = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the journal, where the database answers, and replay in the background."""
        await self._open()
        tasks = [asyncio.create_task(self._appends.run()), asyncio.create_task(self._run())]
        try:
            yield
        finally:
            self._closing = True
            self._appends.close()
            self._work.set()
            await asyncio.gather(*tasks)
            await self._unstored.close()

    async def _open(self) -> None:
        if self._refused is None:
            try:
                self._unstored.database = await self._store.identify()
            except StaccatoError as error:
                self._unstored.explain(f"no journal yet: {error}")
                return
            self._refused = RefusedRows(self._unstored.folder, self._unstored.database)
        await self._unstored.open()

    def admit(self) -> None:
        """Raises `JournalUnavailable` where a new answer could not be kept safe."""
        self._unstored.admit()

    async def write(self, row: LogRow) -> None:
        """Returns when the row is safe, or as safe as it can be made. Raises nothing.

        It is handed to the database first; after WRITE_TIMEOUT without a word, or at once
        where that can't be reached, it goes to the journal. Not to be cancelled: the row would
        leave the queue with its caller.
        """
        try:
            written = self._store.insert(row)
        except DatabaseUnavailable:
            await self._keep(row)
            return
        try:
            async with asyncio.timeout(self._write_timeout):
                await written
        except RowRefused as refusal:
            await self._set_aside(row, refusal)
        except (TimeoutError, StaccatoError):
            # Out of time it has left the queue; a flush under way is left to finish.
            await self._keep(row)

    def snapshot(self) -> JournalSnapshot:
        return self._unstored.snapshot(rows_refused=self._refused_count)

    async def _keep(self, row: LogRow) -> None:
        try:
            await self._appends.submit(row, self._store.size(row))
        except DatabaseUnavailable:  # this queue is full as well
            self._unstored.remember([row], "its queue is full")
        self._work.set()

    async def _append(self, rows: Sequence[LogRow]) -> list[None]:
        await self._unstored.keep(rows)
        return [None] * len(rows)

    # --- replay ---------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = -LOOK_AROUND_S
        while True:
            try:
                if not self._unstored.is_open:
                    await self._open()
                if loop.time() - looked_at >= LOOK_AROUND_S:
                    looked_at = loop.time()
                    await self._look_around()
                if self._unstored:
                    await self._unstored.replay(self._hand_over)
            except (StaccatoError, OSError) as error:
                logger.debug("not yet: %s", error)
            except Exception:
                logger.exception("the journal's replay failed")
            if self._closing:
                return
            waiting = self._unstored or not self._unstored.is_open
            self._work.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if waiting else LOOK_AROUND_S):
                    # While rows wait, another one is no reason to look sooner.
                    await (asyncio.sleep(RETRY_S) if waiting else self._work.wait())

    async def _look_around(self) -> None:
        """Other processes and operators change what is here as well."""
        if self._refused is not None:
            await self._unstored.look_around(self._hand_over)
            self._refused_count = await asyncio.to_thread(self._refused.count)

    async def _hand_over(self, rows: Sequence[LogRow]) -> list[LogRow]:
        """The rows that are stored or set aside; memory has the others.

        Raises `DatabaseUnavailable` where not all of them could be stored.
        """
        # Waiting for the database may take long, and their keys must not be taken for an owner's
        # that died. Beside it, since trouble with keys is none of the rows'.
        _renewed, pinged = await asyncio.gather(
            self._store.renew_leases(rows), self._store.ping(), return_exceptions=True
        )
        if pinged is not None:
            raise pinged
        inserted = [self._store.insert(row) for row in rows]
        outcomes = await asyncio.gather(*inserted, return_exceptions=True)
        done = []
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, RowRefused):
                if not await self._set_aside(row, outcome):
                    continue
            elif isinstance(outcome, BaseException):
                raise outcome
            done.append(row)
        metrics.REPLAYED.inc(len(done))
        return done

    async def _set_aside(self, row: LogRow, refusal: RowRefused) -> bool:
        """Whether that could be done; else only memory has the row."""
        assert self._refused is not None, "no database has refused it"
        try:
            await asyncio.to_thread(self._refused.add, row, str(refusal))
        except OSError as error:
            if row not in self._unstored:  # said once, not at each look
                self._unstored.remember(
                    [row], f"PostgreSQL refuses {row.id}, which can't be set aside: {error}"
                )
            return False
        metrics.REFUSED_ROWS.inc()
        self._refused_count += 1
        logger.error(
            "PostgreSQL refuses the row %s: %s; see manage.py staccato_journal", row.id, refusal
        )
        return True
