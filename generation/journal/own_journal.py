"""This process's own journal: its files, or the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.journal import lines
from generation.journal.file import HEADER_BYTES, JournalFile
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
    why: str  # for operators
    error: OSError | None = None


@dataclass(slots=True, eq=False)
class Part:
    """One of the journal's files."""

    file: JournalFile
    rows: int = 0
    replayed: int = 0  # the offset up to which PostgreSQL has the rows


class OwnJournal:
    """The state of the journal. `locked()` gives the methods that change it."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder = folder
        self.capacity = capacity  # of a file, unless its rows need more or the disk has less
        self.database = ""  # the identity of the rows' database, once it has been reached
        self.full: list[Part] = []  # oldest first; a further file was begun after each
        self.current: Part | None = None  # takes the rows
        self.unavailable: Unavailable | None = None  # None while there is a current file
        self.explain("the database has not been reached yet")
        self._lock = asyncio.Lock()

    @property
    def parts(self) -> list[Part]:
        return [*self.full, self.current] if self.current else [*self.full]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.file.end for part in self.parts)

    def leave_to_parent(self) -> None:
        """After a fork: don't hold the locks, which end when all that have the files close them."""
        for part in self.parts:
            part.file.close()

    def explain(self, why: str) -> None:
        """Say why there can't be a journal yet."""
        self.unavailable = Unavailable(public=why, internal=why)

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[LockedJournal]:
        """One thread at a time works on the files."""
        async with self._lock:
            yield LockedJournal(self)


class LockedJournal:
    """What may be done with the journal while its lock is held."""

    def __init__(self, journal: OwnJournal) -> None:
        self._journal = journal

    async def create(self) -> None:
        """Begin a file, or say why that can't be."""
        journal = self._journal
        try:
            journal.current = await self._begin(journal.capacity)
        except OSError as error:
            self._give_up("made", error)
        else:
            journal.unavailable = None

    async def _begin(self, capacity: int) -> Part:
        journal = self._journal
        return Part(
            await asyncio.to_thread(JournalFile.create, journal.folder, journal.database, capacity)
        )

    async def append(self, rows: Sequence[KeyedRow]) -> Appended:
        """Write the rows, and wait until the disk has them. What does not fit goes to a further
        file, if the disk has room for one."""
        journal = self._journal
        part = journal.current
        if part is None:
            why = journal.unavailable.internal if journal.unavailable else "there is none"
            return Appended((), rows, why)
        encoded = [(keyed, lines.encode(lines.from_row(keyed))) for keyed in rows]
        room = part.file.free
        fitting, further = [], []
        for item in encoded:
            if len(item[1]) <= room:
                room -= len(item[1])
                fitting.append(item)
            else:
                further.append(item)
        try:
            await self._write(part, fitting)
            saved = [keyed for keyed, _line in fitting]
            if not further:
                return Appended(saved, (), "")
        except OSError as error:
            self._abandon_file(part, error)
            return Appended((), rows, str(error), error)
        left = [keyed for keyed, _line in further]
        try:
            part = await self._begin_further(sum(len(line) for _keyed, line in further))
        except OSError as error:
            return Appended(saved, left, f"it is full, and can't go on: {error}", error)
        journal.full += [journal.current] if journal.current else []
        journal.current = part
        logger.warning("the journal is full; it goes on in %s", part.file.path)
        try:
            await self._write(part, further)
        except OSError as error:
            self._abandon_file(part, error)
            return Appended(saved, left, str(error), error)
        return Appended([*saved, *left], (), "")

    async def _begin_further(self, need: int) -> Part:
        """A disk that has no room for a whole file may have room for these rows."""
        need += HEADER_BYTES
        try:
            return await self._begin(max(self._journal.capacity, need))
        except OSError:
            return await self._begin(need)

    async def _write(self, part: Part, encoded: list[tuple[KeyedRow, bytes]]) -> None:
        if not encoded:
            return
        await asyncio.to_thread(part.file.append, [line for _keyed, line in encoded])
        if not self._journal.rows:
            logger.warning("the database is away: answers go to %s", part.file.path)
        part.rows += len(encoded)
        metrics.JOURNALED.inc(len(encoded))

    async def replace_removed(self) -> Sequence[KeyedRow]:
        """Forget the files that somebody has removed, and begin a new one where that was the
        current one. Returns the rows that they held.

        They can still be read, though no other process could adopt them.
        """
        journal = self._journal
        found: list[lines.Line] = []
        for part in journal.parts:
            if not part.file.is_removed:
                continue
            self._drop(part)
            logger.error("%s was removed while it was in use", part.file.path)
            try:
                found += await asyncio.to_thread(_read, part)
            except OSError as error:
                logger.error("what it held is lost: %s", error)  # noqa: TRY400  # it says all
            finally:
                part.file.close()
        if journal.current is None and journal.unavailable is None:
            await self.create()
        records = (line.record for line in found if line.record)
        return [keyed for keyed in map(lines.to_row, records) if keyed is not None]

    async def mark_replayed(self, part: Part, end: int) -> bool:
        """Note that PostgreSQL has the rows of this file up to an offset, and free its space where
        that is all of it. Returns whether no row waits in any file. Raises `OSError`."""
        journal = self._journal
        if part not in journal.parts:
            return False
        part.replayed = end
        if end != part.file.end:
            return False
        if part is journal.current and part.file.capacity == journal.capacity:
            await asyncio.to_thread(part.file.clear)
            part.rows = part.replayed = 0
        else:
            is_current = part is journal.current
            self._drop(part)
            await asyncio.to_thread(part.file.remove)
            if is_current:
                await self.create()
        return not journal.rows

    def close(self) -> None:
        """Leave the rows for the next start, and remove files that have none."""
        for part in self._journal.parts:
            if part.file.is_empty:
                part.file.remove()
                continue
            logger.warning("%d rows wait in %s for the next start", part.rows, part.file.path)
            part.file.close()

    def _drop(self, part: Part) -> None:
        journal = self._journal
        if part is journal.current:
            journal.current = None
        else:
            journal.full.remove(part)

    def _abandon_file(self, part: Part, error: OSError) -> None:
        """After a failed fdatasync the disk's content is unknown, so a new file is begun."""
        part.file.close()  # a sibling or the next start adopts it
        self._drop(part)
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


def _read(part: Part) -> list[lines.Line]:
    return list(part.file.read(part.replayed))
