"""Phase 3's promise: an answer that was paid for is kept, whatever the database does.

A row goes to PostgreSQL. Where that does not take it in time it goes to the journal, and from
there to PostgreSQL once that is back. A row that PostgreSQL refuses is set aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation import metrics
from generation.batching import Batcher, Bounds
from generation.errors import DatabaseUnavailable, JournalUnavailable, RowRefused, StaccatoError
from generation.journal import file as journal_file
from generation.journal import lines
from generation.journal.file import JournalFile, JournalFull
from generation.journal.refused import RefusedRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from generation.conf import Settings
    from generation.records import LogRow
    from generation.store import Store

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # between looks whether the database is back
LOOK_AROUND_S = 5.0  # between looks for the journals of processes that died
REPLAY_ROWS = 200
NEAR_FULL = 0.5  # what is left then is for those in flight

_MIB = 1024 * 1024
REPLAY_BYTES = 8 * _MIB
APPEND_BOUNDS = Bounds(
    batch_rows=500, batch_bytes=8 * _MIB, queue_rows=100_000, queue_bytes=1024 * _MIB
)


class DurableLog:
    """Writes log rows. One per process; its journal's lock is held while the process lives."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._folder = Path(settings.journal_dir)
        self._file: JournalFile | None = None
        self._fault = "the database has not been reached yet"  # why there is no file
        self._replayed = 0  # offset in the file behind what the database has
        self._journaled = 0  # rows in the file
        self._unsaved: dict[str, LogRow] = {}  # rows that only memory has
        self._refused = 0
        self._disk = asyncio.Lock()  # one thread at a time works on the file
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
            await self._close()

    def admit(self) -> None:
        """Raises `JournalUnavailable` where a new answer could not be kept safe."""
        if self._file is None:
            raise JournalUnavailable(self._fault, retry_after=1)
        if self._unsaved or self._file.free < self._file.capacity * NEAR_FULL:
            raise JournalUnavailable(
                "the journal is near full: the database has been away for long", retry_after=5
            )

    async def write(self, row: LogRow) -> None:
        """Returns when the row is safe, or as safe as it can be made. Raises nothing.

        It is handed to the database first; after WRITE_TIMEOUT without a word, or at once
        where that can't be reached, it goes to the journal.
        """
        try:
            written = self._store.insert(row)
        except DatabaseUnavailable:
            await self._keep(row)
            return
        try:
            async with asyncio.timeout(self._settings.write_timeout):
                await asyncio.shield(written)
        except RowRefused as refusal:
            await self._set_aside(row, refusal)
        except (TimeoutError, StaccatoError):
            written.cancel()  # leaves the queue; a flush under way is left to finish
            await self._keep(row)

    def statistics(self) -> dict[str, Any]:
        file = self._file
        return {
            "rows": self._journaled,
            "bytes": file.end if file else 0,
            "capacity_bytes": file.capacity if file else 0,
            "rows_in_memory_only": len(self._unsaved),
            "rows_refused": self._refused,
        }

    # --- the journal ----------------------------------------------------------------------

    async def _keep(self, row: LogRow) -> None:
        try:
            await self._appends.submit(row, self._store.size(row))
        except DatabaseUnavailable:  # this queue is full as well
            self._remember([row], "its queue is full")
        self._work.set()

    async def _append(self, rows: Sequence[LogRow]) -> list[None]:
        encoded = [lines.encode(lines.from_row(row)) for row in rows]
        async with self._disk:
            if self._file is None:
                self._remember(rows, self._fault)
                return [None] * len(rows)
            try:
                await asyncio.to_thread(self._file.append, encoded)
            except JournalFull:
                self._remember(rows, "it is full")
            except OSError as error:
                self._lose_file(error)
                self._remember(rows, str(error))
            else:
                if not self._journaled:
                    logger.warning("the database is away: answers go to %s", self._file.path)
                self._journaled += len(rows)
                metrics.JOURNALED.inc(len(rows))
        return [None] * len(rows)

    def _remember(self, rows: Sequence[LogRow], why: str) -> None:
        """The one case in which a kill can lose an answered row; said as plainly as can be."""
        self._unsaved.update((str(row.id), row) for row in rows)
        logger.error(
            "the journal can't be written (%s): a kill of this process would now lose %d"
            " answered generations",
            why,
            len(self._unsaved),
        )

    def _lose_file(self, error: OSError) -> None:
        """After a failed fdatasync nobody knows what the disk has; a new file is begun."""
        if self._file is not None:
            self._file.close()  # a sibling or the next start adopts it
        self._file = None
        self._journaled = 0
        self._fault = f"the journal in {self._folder} can't be written: {error}"
        logger.error("%s; new requests are refused", self._fault)

    async def _open(self) -> None:
        try:
            database = await self._store.identify()
        except StaccatoError as error:
            self._fault = f"no journal yet: {error}"
            return
        async with self._disk:
            try:
                self._file = await asyncio.to_thread(
                    JournalFile.create, self._folder, database, self._settings.journal_max_bytes
                )
            except OSError as error:
                fault = f"the journal in {self._folder} can't be made: {error}"
                if fault != self._fault:  # said once, not at each look
                    logger.error("%s; new requests are refused", fault)  # noqa: TRY400
                self._fault = fault
                return
        self._replayed = 0
        self._rows_refused = RefusedRows(self._folder, database)

    async def _close(self) -> None:
        if self._unsaved:
            logger.error("%d answered generations are lost: no disk took them", len(self._unsaved))
        if self._file is not None:
            if self._file.is_empty:
                self._file.remove()
            else:
                logger.warning(
                    "%d rows wait in %s for the next start", self._journaled, self._file.path
                )
                self._file.close()

    # --- replay ---------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = -LOOK_AROUND_S
        while True:
            try:
                if self._file is None:
                    await self._open()
                if loop.time() - looked_at >= LOOK_AROUND_S:
                    looked_at = loop.time()
                    await self._look_around()
                await self._replay_own()
            except (StaccatoError, OSError) as error:
                logger.debug("not yet: %s", error)
            except Exception:
                logger.exception("the journal's replay failed")
            if self._closing:
                return
            waiting = self._file is None or self._journaled or self._unsaved
            self._work.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if waiting else LOOK_AROUND_S):
                    # While rows wait, another one is no reason to look sooner.
                    await (asyncio.sleep(RETRY_S) if waiting else self._work.wait())

    async def _replay_own(self) -> None:
        if not (self._journaled or self._unsaved):
            return
        await self._store.ping()
        if self._unsaved:
            # In pieces, and each taken out by name: more may come while one is stored.
            while rows := list(islice(self._unsaved.values(), REPLAY_ROWS)):
                await self._hand_over(rows)
                for row in rows:
                    self._unsaved.pop(str(row.id), None)
            logger.warning("the rows that only memory had are stored")
        if self._file is None or not self._journaled:
            return
        waiting = self._journaled
        self._replayed = await self._replay(self._file, self._replayed)
        async with self._disk:
            if self._file is not None and self._replayed == self._file.end:
                await asyncio.to_thread(self._file.clear)
                self._journaled = self._replayed = 0
                logger.warning("the database is back: %d rows of the journal are stored", waiting)

    async def _look_around(self) -> None:
        """Replay and remove the journals of processes that are gone; count what is refused,
        which other processes and operators change as well."""
        if self._file is None:
            return
        database = self._file.database
        self._refused = len(await asyncio.to_thread(self._rows_refused.read))
        await asyncio.to_thread(journal_file.remove_drafts, self._folder)
        for path in await asyncio.to_thread(journal_file.list_files, self._folder, database):
            orphan = await asyncio.to_thread(JournalFile.adopt, path)
            if orphan is None:
                continue
            try:
                if orphan.database != database:
                    logger.error("%s is for another database: left alone", path)
                    continue
                if orphan.garbled:
                    logger.error("%s: %d torn lines are skipped", path, orphan.garbled)
                await self._store.ping()
                await self._replay(orphan, 0)
                await asyncio.to_thread(orphan.path.unlink)
                await asyncio.to_thread(journal_file.sync_folder, self._folder)
                logger.warning("adopted and stored the journal %s", path)
            finally:
                orphan.close()

    async def _replay(self, file: JournalFile, start: int) -> int:
        """Store the rows from an offset on; the offset behind them. Raises `StaccatoError`."""
        while True:
            found = await asyncio.to_thread(_read_some, file, start)
            if not found:
                return start
            rows = []
            for line in found:
                if line.record is None:
                    continue
                row = lines.to_row(line.record)
                if row is None:
                    raise JournalUnavailable(f"{file.path} holds what this version can't read")
                rows.append(row)
            await self._hand_over(rows)
            start = found[-1].end

    async def _hand_over(self, rows: Sequence[LogRow]) -> None:
        """Raises `DatabaseUnavailable` where not all of them could be stored."""
        # Before their keys are taken for an owner's that died: it may take long.
        await self._store.renew_leases(rows)
        outcomes = await asyncio.gather(
            *(self._store.insert(row) for row in rows), return_exceptions=True
        )
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, RowRefused):
                await self._set_aside(row, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        metrics.REPLAYED.inc(len(rows))

    async def _set_aside(self, row: LogRow, refusal: RowRefused) -> None:
        metrics.REFUSED_ROWS.inc()
        logger.error(
            "PostgreSQL refuses the row %s: %s; see manage.py staccato_journal", row.id, refusal
        )
        try:
            await asyncio.to_thread(self._rows_refused.add, row, str(refusal))
        except OSError as error:
            self._remember([row], str(error))
        else:
            self._refused += 1


def _read_some(file: JournalFile, start: int) -> list[lines.Line]:
    """The next lines, as many as are stored at once."""
    found: list[lines.Line] = []
    for line in islice(file.read(start), REPLAY_ROWS):
        found.append(line)
        if line.end - start > REPLAY_BYTES:
            break
    return found
