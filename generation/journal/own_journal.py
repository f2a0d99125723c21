"""This process's own journal: its file, or the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.journal import lines
from generation.journal.file import JournalFile
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from generation.records import KeyedRow

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why there is no journal."""

    public: str  # for callers, to whom paths are of no concern
    internal: str  # for operators


@dataclass(frozen=True, slots=True)
class Appended:
    """Which rows are on disk, and why the others are not."""

    saved: Sequence[KeyedRow]
    left: Sequence[KeyedRow]
    why: str


class OwnJournal:
    """The state of the journal. `locked()` gives the methods that change it."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder = folder
        self.capacity = capacity
        self.database = ""  # the identity of the rows' database, once it has been reached
        self.file: JournalFile | None = None
        self.unavailable: Unavailable | None = None  # None while there is a file
        self.explain("the database has not been reached yet")
        self.rows = 0  # in the file
        self.replayed = 0  # the offset in the file up to which PostgreSQL has the rows
        self._lock = asyncio.Lock()

    def explain(self, why: str) -> None:
        """Say why there can't be a journal yet."""
        self.unavailable = Unavailable(public=why, internal=why)

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[LockedJournal]:
        """One thread at a time works on the file."""
        async with self._lock:
            yield LockedJournal(self)


class LockedJournal:
    """What may be done with the journal while its lock is held."""

    def __init__(self, journal: OwnJournal) -> None:
        self._journal = journal

    async def create(self) -> None:
        """Begin a new file, or say why that can't be."""
        journal = self._journal
        journal.rows = journal.replayed = 0
        try:
            journal.file = await asyncio.to_thread(
                JournalFile.create, journal.folder, journal.database, journal.capacity
            )
        except OSError as error:
            self._give_up("made", error)
        else:
            journal.unavailable = None

    async def append(self, rows: Sequence[KeyedRow]) -> Appended:
        """Write the rows that fit, and wait until the disk has them."""
        journal = self._journal
        file = journal.file
        if file is None:
            why = journal.unavailable.internal if journal.unavailable else "there is none"
            return Appended((), rows, why)
        room = file.free
        encoded: list[bytes] = []
        saved: list[KeyedRow] = []
        left: list[KeyedRow] = []
        for keyed in rows:
            line = lines.encode(lines.from_row(keyed))
            if len(line) > room:
                left.append(keyed)
                continue
            room -= len(line)
            encoded.append(line)
            saved.append(keyed)
        if saved:
            try:
                await asyncio.to_thread(file.append, encoded)
            except OSError as error:
                self._abandon_file(file, error)
                return Appended((), rows, str(error))
            if not journal.rows:
                logger.warning("the database is away: answers go to %s", file.path)
            journal.rows += len(saved)
            metrics.JOURNALED.inc(len(saved))
        return Appended(saved, left, "it is full")

    async def replace_removed(self) -> Sequence[KeyedRow]:
        """Begin a new file where somebody has removed ours. Returns the rows that it held.

        They can still be read, though no other process could adopt them.
        """
        journal = self._journal
        removed = journal.file
        if removed is None or not removed.is_removed:
            return ()
        journal.file = None
        logger.error("%s was removed while it was in use; a new journal is begun", removed.path)
        start = journal.replayed
        try:
            found = await asyncio.to_thread(lambda: list(removed.read(start)))
        except OSError as error:
            found = []
            logger.error("what it held is lost: %s", error)  # noqa: TRY400  # it says all
        finally:
            removed.close()
        await self.create()
        records = (line.record for line in found if line.record)
        return [keyed for keyed in map(lines.to_row, records) if keyed is not None]

    async def mark_replayed(self, file: JournalFile, end: int) -> bool:
        """Note that PostgreSQL has the rows of this file up to an offset, and clear the file where
        that is all of it. Returns whether it is. Raises `OSError`."""
        journal = self._journal
        if journal.file is not file:
            return False
        journal.replayed = end
        if end != file.end:
            return False
        await asyncio.to_thread(file.clear)
        journal.rows = journal.replayed = 0
        return True

    def close(self) -> None:
        """Leave the rows for the next start, or remove a file that has none."""
        journal = self._journal
        if journal.file is None:
            return
        if journal.file.is_empty:
            journal.file.remove()
            return
        logger.warning("%d rows wait in %s for the next start", journal.rows, journal.file.path)
        journal.file.close()

    def _abandon_file(self, file: JournalFile, error: OSError) -> None:
        """After a failed fdatasync the disk's content is unknown, so a new file is begun."""
        file.close()  # a sibling or the next start adopts it
        self._journal.file = None
        self._journal.rows = 0
        self._give_up("written", error)

    def _give_up(self, verb: str, error: OSError) -> None:
        journal = self._journal
        # Without its path, since that names another draft at each try.
        why = error.strerror or str(error)
        reason = Unavailable(
            public="the service can't write its journal; its log says why",
            internal=f"the journal in {journal.folder} can't be {verb}: {why}",
        )
        if reason != journal.unavailable:  # logged once, not at each try
            logger.error("%s; new requests are refused", reason.internal)
        journal.unavailable = reason
