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
from generation.journal.file import JournalFile
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
        self._database = ""  # its identity, once it has been reached
        self._file: JournalFile | None = None
        self._fault = "the database has not been reached yet"  # why there is no file
        self._replayed = 0  # offset in the file behind what the database has
        self._journaled = 0  # rows in the file
        self._unsaved: dict[str, LogRow] = {}  # rows that only memory has
        self._refused = 0
        self._left_alone: set[Path] = set()  # journals that can't be adopted, each said once
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
        async with self._disk:
            await self._replace_removed()
            await self._save(rows)
        return [None] * len(rows)

    async def _save(self, rows: Sequence[LogRow]) -> None:
        """Append what fits and remember the rest; call it while `_disk` is held."""
        if self._file is None:
            self._remember(rows, self._fault)
            return
        room = self._file.free
        encoded: list[bytes] = []
        fitting: list[LogRow] = []
        over: list[LogRow] = []
        for row in rows:
            line = lines.encode(lines.from_row(row))
            if len(line) > room:
                over.append(row)
                continue
            room -= len(line)
            encoded.append(line)
            fitting.append(row)
        if over:
            self._remember(over, "it is full")
        if not fitting:
            return
        try:
            await asyncio.to_thread(self._file.append, encoded)
        except OSError as error:
            self._lose_file(error)
            self._remember(fitting, str(error))
            return
        if not self._journaled:
            logger.warning("the database is away: answers go to %s", self._file.path)
        self._journaled += len(fitting)
        metrics.JOURNALED.inc(len(fitting))

    async def _save_the_last(self) -> None:
        """What only memory has goes to a file of its own size, where the disk takes one."""
        if not self._unsaved:
            return
        rows = list(self._unsaved.values())
        encoded = [lines.encode(lines.from_row(row)) for row in rows]
        size = journal_file.HEADER_BYTES + sum(map(len, encoded))
        try:
            last = await asyncio.to_thread(JournalFile.create, self._folder, self._database, size)
            try:
                await asyncio.to_thread(last.append, encoded)
            finally:
                last.close()
        except OSError as error:
            logger.error(  # noqa: TRY400
                "%d answered generations are lost: no disk took them (%s)", len(rows), error
            )
        else:
            logger.warning("%d rows wait in %s for the next start", len(rows), last.path)

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
        if not self._database:
            try:
                self._database = await self._store.identify()
            except StaccatoError as error:
                self._fault = f"no journal yet: {error}"
                return
            self._rows_refused = RefusedRows(self._folder, self._database)
        async with self._disk:
            await self._create()
            if self._file is not None and self._unsaved:
                rows = list(self._unsaved.values())
                self._unsaved.clear()
                await self._save(rows)

    async def _create(self) -> None:
        """A new file; call it while `_disk` is held."""
        try:
            self._file = await asyncio.to_thread(
                JournalFile.create, self._folder, self._database, self._settings.journal_max_bytes
            )
        except OSError as error:
            fault = f"the journal in {self._folder} can't be made: {error}"
            if fault != self._fault:  # said once, not at each look
                logger.error("%s; new requests are refused", fault)  # noqa: TRY400
            self._fault = fault
        self._replayed = self._journaled = 0

    async def _replace_removed(self) -> None:
        """Begin anew where somebody removed the file; call it while `_disk` is held.

        What it held can still be read, though nobody could adopt it.
        """
        removed = self._file
        if removed is None or not removed.is_removed:
            return
        self._file = None
        self._fault = f"{removed.path} was removed"
        logger.error("%s while it was in use; a new journal is begun", self._fault)
        start = self._replayed
        try:
            found = await asyncio.to_thread(lambda: list(removed.read(start)))
        except OSError as error:
            found = []
            logger.error("what it held is lost: %s", error)  # noqa: TRY400
        finally:
            removed.close()
        await self._create()
        records = (line.record for line in found if line.record)
        await self._save([row for row in map(lines.to_row, records) if row is not None])

    async def _close(self) -> None:
        await self._save_the_last()
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
            rows = list(self._unsaved.values())
            for start in range(0, len(rows), REPLAY_ROWS):
                for row in await self._hand_over(rows[start : start + REPLAY_ROWS]):
                    self._unsaved.pop(str(row.id), None)
            if not self._unsaved:
                logger.warning("the rows that only memory had are stored")
        if self._file is None or not self._journaled:
            return
        file, waiting = self._file, self._journaled
        replayed = await self._replay(file, self._replayed)
        async with self._disk:
            if self._file is not file:
                return
            self._replayed = replayed
            if self._replayed == self._file.end:
                await asyncio.to_thread(self._file.clear)
                self._journaled = self._replayed = 0
                logger.warning("the database is back: %d rows of the journal are stored", waiting)

    async def _look_around(self) -> None:
        """Replay and remove the journals of processes that are gone; count what is refused,
        which other processes and operators change as well."""
        if not self._database:
            return
        async with self._disk:
            await self._replace_removed()
        self._refused = await asyncio.to_thread(self._rows_refused.count)
        await asyncio.to_thread(journal_file.remove_drafts, self._folder)
        found = await asyncio.to_thread(journal_file.list_files, self._folder, self._database)
        for path in found:
            try:
                await self._adopt(path)
            except (JournalUnavailable, OSError) as error:  # no reason to leave the others
                if path not in self._left_alone:
                    logger.error("%s is left alone: %s", path, error)  # noqa: TRY400
                self._left_alone.add(path)

    async def _adopt(self, path: Path) -> None:
        """Raises `DatabaseUnavailable`, `JournalUnavailable`, `OSError`."""
        orphan = await asyncio.to_thread(JournalFile.adopt, path)
        if orphan is None:
            return
        try:
            if orphan.database != self._database:
                raise JournalUnavailable("it is for another database, or its first line is damaged")
            await self._store.ping()
            if orphan.garbled:
                logger.error("%s: %d torn lines are skipped", path, orphan.garbled)
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

    async def _hand_over(self, rows: Sequence[LogRow]) -> list[LogRow]:
        """The rows that are stored or set aside; memory has the others.

        Raises `DatabaseUnavailable` where not all of them could be stored.
        """
        inserted = [self._store.insert(row) for row in rows]
        # It may take long, and their keys must not be taken for an owner's that died. Beside
        # the insertion, since trouble with keys is none of the rows'.
        _renewed, *outcomes = await asyncio.gather(
            self._store.renew_leases(rows), *inserted, return_exceptions=True
        )
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
        try:
            await asyncio.to_thread(self._rows_refused.add, row, str(refusal))
        except OSError as error:
            if str(row.id) not in self._unsaved:  # said once, not at each look
                self._remember(
                    [row], f"PostgreSQL refuses {row.id}, which can't be set aside: {error}"
                )
            return False
        metrics.REFUSED_ROWS.inc()
        self._refused += 1
        logger.error(
            "PostgreSQL refuses the row %s: %s; see manage.py staccato_journal", row.id, refusal
        )
        return True


def _read_some(file: JournalFile, start: int) -> list[lines.Line]:
    """The next lines, as many as are stored at once."""
    found: list[lines.Line] = []
    for line in islice(file.read(start), REPLAY_ROWS):
        found.append(line)
        if line.end - start > REPLAY_BYTES:
            break
    return found
