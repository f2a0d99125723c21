"""Where rows wait that PostgreSQL has not taken: this process's journal, and past it memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from generation import files
from generation.errors import JournalUnavailable
from generation.journal import file as journal_file
from generation.journal import lines
from generation.journal.file import JournalFile
from generation.records import LogRow
from generation.telemetry import metrics
from generation.telemetry.snapshot import JournalSnapshot

if TYPE_CHECKING:
    from generation.conf import Settings

logger = logging.getLogger(__name__)

REPLAY_ROWS = 200
REPLAY_BYTES = 8 * 1024 * 1024
NEAR_FULL = 0.5  # what is left then is for those in flight

# Gives the rows that are stored or set aside then. Raises `DatabaseUnavailable`.
HandOver = Callable[[Sequence[LogRow]], Awaitable[list[LogRow]]]


class UnstoredRows:
    """One per process; its journal's lock is held while the process lives."""

    def __init__(self, settings: Settings) -> None:
        self.folder = Path(settings.journal_dir)
        self._capacity = settings.journal_max_bytes
        self.database = ""  # the identity of the rows' own, once it has been reached
        self._file: JournalFile | None = None
        self._fault = "the database has not been reached yet"  # why there is no file, for callers
        self._complaint = ""  # likewise, for operators
        self._replayed = 0  # offset in the file behind what the database has
        self._journaled = 0  # rows in the file
        self._in_memory: dict[str, LogRow] = {}
        self._left_alone: set[Path] = set()  # journals that can't be adopted, each said once
        self._disk = asyncio.Lock()  # one thread at a time works on the file

    def __bool__(self) -> bool:
        return bool(self._journaled or self._in_memory)

    def __contains__(self, row: LogRow) -> bool:
        """Whether only memory has it."""
        return str(row.id) in self._in_memory

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def admit(self) -> None:
        """Raises `JournalUnavailable` where a new answer could not be kept safe."""
        if self._file is None:
            raise JournalUnavailable(self._fault, retry_after=1)
        if self._in_memory or self._file.free < self._file.capacity * NEAR_FULL:
            raise JournalUnavailable(
                "the journal is near full: the database has been away for long", retry_after=5
            )

    def snapshot(self, *, rows_refused: int) -> JournalSnapshot:
        file = self._file
        return JournalSnapshot(
            rows=self._journaled,
            bytes=file.end if file else 0,
            capacity_bytes=file.capacity if file else 0,
            rows_in_memory_only=len(self._in_memory),
            rows_refused=rows_refused,
        )

    # --- in ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin a journal for `database`, where the disk lets us."""
        async with self._disk:
            await self._create()
            if self._file is not None and self._in_memory:
                for row in await self._save(list(self._in_memory.values())):
                    self._in_memory.pop(str(row.id), None)

    def explain(self, fault: str) -> None:
        """Why there can't be a journal yet; who is refused is told."""
        self._fault = fault

    async def keep(self, rows: Sequence[LogRow]) -> None:
        """Returns when they are on disk, or as safe as they can be made. Raises nothing."""
        async with self._disk:
            await self._replace_removed()
            await self._save(rows)

    def remember(self, rows: Sequence[LogRow], why: str) -> None:
        """The one case in which a kill can lose an answered row; said as plainly as can be."""
        self._in_memory.update((str(row.id), row) for row in rows)
        logger.error(
            "the journal can't be written (%s): a kill of this process would now lose %d"
            " answered generations",
            why,
            len(self._in_memory),
        )

    async def _create(self) -> None:
        """A new file; call it while `_disk` is held."""
        try:
            self._file = await asyncio.to_thread(
                JournalFile.create, self.folder, self.database, self._capacity
            )
        except OSError as error:
            self._complain("made", error)
        else:
            self._complaint = ""
        self._replayed = self._journaled = 0

    async def _save(self, rows: Sequence[LogRow]) -> list[LogRow]:
        """Append what fits, which is returned, and remember the rest; call it while `_disk` is
        held."""
        if not rows:
            return []
        if self._file is None:
            self.remember(rows, self._complaint or self._fault)
            return []
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
            self.remember(over, "it is full")
        if not fitting:
            return []
        try:
            await asyncio.to_thread(self._file.append, encoded)
        except OSError as error:
            self._lose_file(error)
            self.remember(fitting, str(error))
            return []
        if not self._journaled:
            logger.warning("the database is away: answers go to %s", self._file.path)
        self._journaled += len(fitting)
        metrics.JOURNALED.inc(len(fitting))
        return fitting

    def _lose_file(self, error: OSError) -> None:
        """After a failed fdatasync nobody knows what the disk has; a new file is begun."""
        if self._file is not None:
            self._file.close()  # a sibling or the next start adopts it
        self._file = None
        self._journaled = 0
        self._complain("written", error)

    def _complain(self, verb: str, error: OSError) -> None:
        why = error.strerror or str(error)  # the whole of it names a draft, another each time
        complaint = f"the journal in {self.folder} can't be {verb}: {why}"
        if complaint != self._complaint:  # said once, not at each look
            logger.error("%s; new requests are refused", complaint)
        self._complaint = complaint
        self._fault = "the service can't write its journal; its log says why"

    async def _replace_removed(self) -> None:
        """Begin anew where somebody removed the file; call it while `_disk` is held.

        What it held can still be read, though nobody could adopt it.
        """
        removed = self._file
        if removed is None or not removed.is_removed:
            return
        self._file = None
        logger.error("%s was removed while it was in use; a new journal is begun", removed.path)
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

    # --- out --------------------------------------------------------------------------------

    async def replay(self, hand_over: HandOver) -> None:
        """Hand everything over. Raises `DatabaseUnavailable`, `JournalUnavailable`, `OSError`."""
        if self._in_memory:
            # In pieces, and each taken out by name: more may come while one is stored.
            rows = list(self._in_memory.values())
            for start in range(0, len(rows), REPLAY_ROWS):
                for row in await hand_over(rows[start : start + REPLAY_ROWS]):
                    self._in_memory.pop(str(row.id), None)
            if not self._in_memory:
                logger.warning("the rows that only memory had are stored")
        if self._file is None or not self._journaled:
            return
        file, waiting = self._file, self._journaled
        replayed = await _replay(file, self._replayed, hand_over)
        async with self._disk:
            if self._file is not file:
                return
            self._replayed = replayed
            if self._replayed == self._file.end:
                await asyncio.to_thread(self._file.clear)
                self._journaled = self._replayed = 0
                logger.warning("the database is back: %d rows of the journal are stored", waiting)

    async def look_around(self, hand_over: HandOver) -> None:
        """Hand over and remove the journals of processes that are gone.

        Raises `DatabaseUnavailable`.
        """
        async with self._disk:
            await self._replace_removed()
        await asyncio.to_thread(journal_file.remove_drafts, self.folder)
        found = await asyncio.to_thread(journal_file.list_files, self.folder, self.database)
        for path in found:
            try:
                await self._adopt(path, hand_over)
            except (JournalUnavailable, OSError) as error:  # no reason to leave the others
                if path not in self._left_alone:
                    logger.error("%s is left alone: %s", path, error)  # noqa: TRY400
                self._left_alone.add(path)

    async def _adopt(self, path: Path, hand_over: HandOver) -> None:
        orphan = await asyncio.to_thread(JournalFile.adopt, path)
        if orphan is None:
            return
        try:
            if orphan.database != self.database:
                raise JournalUnavailable("it is for another database, or its first line is damaged")
            await _replay(orphan, 0, hand_over)
            if orphan.garbled:
                logger.error("%s: %d torn lines are skipped", path, orphan.garbled)
            await asyncio.to_thread(orphan.path.unlink)
            await asyncio.to_thread(files.sync_folder, self.folder)
            logger.warning("adopted and stored the journal %s", path)
        finally:
            orphan.close()

    async def close(self) -> None:
        async with self._disk:
            await self._replace_removed()
        await self._save_the_last()
        if self._file is not None:
            if self._file.is_empty:
                self._file.remove()
            else:
                logger.warning(
                    "%d rows wait in %s for the next start", self._journaled, self._file.path
                )
                self._file.close()

    async def _save_the_last(self) -> None:
        """What only memory has goes to a file of its own size, where the disk takes one."""
        if not self._in_memory:
            return
        rows = list(self._in_memory.values())
        encoded = [lines.encode(lines.from_row(row)) for row in rows]
        size = journal_file.HEADER_BYTES + sum(map(len, encoded))
        try:
            last = await asyncio.to_thread(JournalFile.create, self.folder, self.database, size)
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


async def _replay(file: JournalFile, start: int, hand_over: HandOver) -> int:
    """Hand over the rows from an offset on; the offset behind them."""
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
        await hand_over(rows)
        start = found[-1].end


def _read_some(file: JournalFile, start: int) -> list[lines.Line]:
    """The next lines, as many as are stored at once."""
    found: list[lines.Line] = []
    for line in islice(file.read(start), REPLAY_ROWS):
        found.append(line)
        if line.end - start > REPLAY_BYTES:
            break
    return found
