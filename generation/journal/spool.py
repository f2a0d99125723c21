"""The spool: where rows wait that PostgreSQL has not stored.

That is this process's journal, and memory where the journal has no room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from generation import files
from generation.errors import JournalUnavailable
from generation.journal import file as journal_file
from generation.journal import lines
from generation.journal.file import JournalFile
from generation.journal.own_journal import OwnJournal
from generation.records import KeyedRow, KeyRef
from generation.telemetry.snapshot import JournalSnapshot

if TYPE_CHECKING:
    from uuid import UUID

    from generation.conf import Settings
    from generation.journal.own_journal import LockedJournal

logger = logging.getLogger(__name__)

REPLAY_ROWS = 200
REPLAY_BYTES = 8 * 1024 * 1024
APART = "apart-"  # marks the files of rows that may have to wait for weeks
APART_RETRY_S = 600.0
NEAR_FULL = 0.5  # of the space; what is left then is for the requests in flight

# Returns the rows that are stored or set aside. Raises `DatabaseUnavailable`.
HandOver = Callable[[Sequence[KeyedRow]], Awaitable[list[KeyedRow]]]


class Spool:
    """One per process; its journal's lock is held while the process lives."""

    def __init__(self, settings: Settings) -> None:
        self._journal = OwnJournal(Path(settings.journal_dir), settings.journal_max_bytes)
        self._in_memory: dict[str, KeyedRow] = {}
        self._why_in_memory = ""  # for callers, to whom paths are of no concern
        self._refused: set[str] = set()  # of those in memory; no file can take them
        self._rejected: set[Path] = set()  # journals that can't be adopted, each logged once

    def __bool__(self) -> bool:
        return bool(self._journal.rows or self._in_memory)

    def __contains__(self, keyed: KeyedRow) -> bool:
        """Whether the row is in memory only."""
        return str(keyed.row.id) in self._in_memory

    def find_in_memory(self, token: UUID) -> KeyedRow | None:
        """Returns the row of the claim with this token, if it is in memory only."""
        rows = self._in_memory.values()
        return next((it for it in rows if it.claim is not None and it.claim.token == token), None)

    @property
    def folder(self) -> Path:
        return self._journal.folder

    @property
    def is_open(self) -> bool:
        return self._journal.current is not None

    def admit(self) -> None:
        """Raises `JournalUnavailable` if a new answer could not be kept safe."""
        journal = self._journal
        if journal.current is None:
            reason = journal.unavailable
            raise JournalUnavailable(reason.public if reason else "no journal yet", retry_after=1)
        if self._in_memory:
            raise JournalUnavailable(
                f"{len(self._in_memory)} answers are in memory only: {self._why_in_memory}",
                retry_after=5,
            )
        if journal.bytes > journal.capacity * NEAR_FULL:
            raise JournalUnavailable(
                "the journal is near full: the database has been away for long", retry_after=5
            )

    def snapshot(self, *, rows_refused: int) -> JournalSnapshot:
        journal = self._journal
        return JournalSnapshot(
            rows=journal.rows,
            bytes=journal.bytes,
            capacity_bytes=sum(part.file.capacity for part in journal.parts),
            rows_in_memory_only=len(self._in_memory),
            rows_refused=rows_refused,
        )

    # --- in ---------------------------------------------------------------------------------

    async def open(self, database: str) -> None:
        """Begin a journal for the database with this identity, where the disk lets us."""
        self._journal.database = database
        async with self._journal.locked() as journal:
            await journal.create()
        await self.rescue()

    def leave_to_parent(self) -> None:
        self._journal.leave_to_parent()

    def explain(self, why: str) -> None:
        """Say why there can't be a journal yet; refused callers read it."""
        self._journal.explain(why)

    async def keep(self, rows: Sequence[KeyedRow]) -> None:
        """Returns when the rows are on disk, or as safe as they can be made. Raises nothing."""
        async with self._journal.locked() as journal:
            await self._save(journal, [*await journal.replace_removed(), *rows])

    async def rescue(self) -> None:
        """Write rows that are in memory only to a file, once one can be written."""
        rows = [keyed for name, keyed in self._in_memory.items() if name not in self._refused]
        if not (rows and self.is_open):
            return
        async with self._journal.locked() as journal:
            appended = await journal.append(rows)
            self._forget(appended.saved)
        if appended.saved:
            logger.warning(
                "the journal can be written again: it has the rows that were in memory only"
            )

    def remember_refused(self, keyed: KeyedRow, why: str, error: OSError) -> None:
        """Keep a row in memory that PostgreSQL refuses and that can't be set aside."""
        self._refused.add(str(keyed.row.id))
        self.remember([keyed], why, _reason("a refused row can't be set aside", error))

    def remember(
        self, rows: Sequence[KeyedRow], why: str, public: str = "the journal can't be written"
    ) -> None:
        """Keep rows in memory: the one case in which a kill can lose an answered row."""
        self._why_in_memory = public
        self._in_memory.update((str(keyed.row.id), keyed) for keyed in rows)
        logger.error(
            "the journal can't be written (%s): a kill of this process would now lose %d"
            " answered generations",
            why,
            len(self._in_memory),
        )

    async def _save(self, journal: LockedJournal, rows: Sequence[KeyedRow]) -> None:
        """Append the rows that fit, and remember the rest."""
        if rows:
            appended = await journal.append(rows)
            if appended.left:
                public = _reason("the journal can't be written", appended.error)
                self.remember(appended.left, appended.why, public)

    def _forget(self, rows: Sequence[KeyedRow]) -> None:
        for keyed in rows:
            self._in_memory.pop(str(keyed.row.id), None)
            self._refused.discard(str(keyed.row.id))

    async def _replace_removed(self) -> None:
        async with self._journal.locked() as journal:
            await self._save(journal, await journal.replace_removed())

    # --- out --------------------------------------------------------------------------------

    async def replay(self, hand_over: HandOver) -> None:
        """Hand everything over. Raises `DatabaseUnavailable`, `JournalUnavailable`, `OSError`."""
        if self._in_memory:
            # In pieces, and each taken out by name: more may come while one is stored.
            rows = list(self._in_memory.values())
            for start in range(0, len(rows), REPLAY_ROWS):
                self._forget(await hand_over(rows[start : start + REPLAY_ROWS]))
            if not self._in_memory:
                logger.warning("the rows that were in memory only are stored")
        waiting = self._journal.rows
        for part in self._journal.parts:
            if not part.rows:
                continue
            replayed = await _replay(part.file, part.replayed, hand_over)
            async with self._journal.locked() as journal:
                if await journal.mark_replayed(part, replayed):
                    logger.warning(
                        "the database is back: %d rows of the journal are stored", waiting
                    )

    async def keys(self) -> set[KeyRef]:
        """Returns the idempotency keys of all rows that wait in a journal of this folder."""
        return await asyncio.to_thread(journal_file.keys_in, self.folder, self._journal.database)

    async def adopt_orphans(self, hand_over: HandOver) -> None:
        """Hand over and remove the journals of processes that have died.

        Raises `DatabaseUnavailable`.
        """
        await self._replace_removed()
        folder = self.folder
        await asyncio.to_thread(journal_file.remove_drafts, folder)
        found = await asyncio.to_thread(journal_file.list_files, folder, self._journal.database)
        await asyncio.to_thread(self._name_foreign)
        for path in found:
            if _rests(path):
                continue
            try:
                await self._adopt(path, hand_over)
            except (JournalUnavailable, OSError) as error:  # no reason to skip the others
                if path not in self._rejected:
                    logger.error("%s is left alone: %s", path, error)  # noqa: TRY400  # it says all
                self._rejected.add(path)

    def _name_foreign(self) -> None:
        """Log each journal that no process will ever read, because its database is another one."""
        for path in self.folder.glob(f"*{journal_file.SUFFIX}"):
            if path.name.startswith((f"{self._journal.database}.", ".")) or path in self._rejected:
                continue
            try:
                foreign = JournalFile.adopt(path)
            except OSError:
                continue
            if foreign is None:
                continue  # another deployment's, at work
            lines = list(foreign.read())
            foreign.close()
            if foreign.database and not lines:
                continue  # nothing is in it, e.g. since its process has just begun or ended
            self._rejected.add(path)
            rows = sum(line.record is not None for line in lines)
            logger.error(
                "%s has %d rows for the database %s, and this is %s: they are not stored; if it is"
                " the same one under a new name, run `manage.py staccato_journal adopt` with the"
                " file, else delete it",
                *(path, rows, foreign.database or "of a damaged first line"),
                self._journal.database,
            )

    async def _adopt(self, path: Path, hand_over: HandOver) -> None:
        orphan = await asyncio.to_thread(JournalFile.adopt, path)
        if orphan is None:
            return
        try:
            if orphan.database != self._journal.database:
                raise JournalUnavailable("it is for another database, or its first line is damaged")
            await _replay(orphan, 0, hand_over)
            if orphan.garbled:
                logger.error("%s: %d torn lines are skipped", path, orphan.garbled)
            await asyncio.to_thread(orphan.path.unlink)
            await asyncio.to_thread(files.sync_folder, self.folder)
            logger.warning("adopted and stored the journal %s", path)
        finally:
            orphan.close()

    async def set_apart(self, rows: Sequence[KeyedRow]) -> None:
        """Move rows to a file of their own, so that those after them in a journal are stored.

        The file is adopted like a dead process's, every ten minutes. Raises `OSError`.
        """
        apart = await self._write_file(rows, mark=APART)
        logger.error("%d rows are of a time without partitions; they wait in %s", len(rows), apart)

    async def _write_file(self, rows: Sequence[KeyedRow], mark: str = "") -> Path:
        """Write rows to a file of just their size, for its adopter. Raises `OSError`."""
        encoded = [lines.encode(lines.from_row(keyed)) for keyed in rows]
        size = journal_file.HEADER_BYTES + sum(map(len, encoded))
        file = await asyncio.to_thread(
            JournalFile.create, self.folder, self._journal.database, size, mark=mark
        )
        try:
            await asyncio.to_thread(file.append, encoded)
        finally:
            file.close()
        return file.path

    async def close(self) -> None:
        """Leave the rows that wait for the next start."""
        await self._replace_removed()
        await self._save_memory()
        async with self._journal.locked() as journal:
            journal.close()

    async def _save_memory(self) -> None:
        """Write the rows in memory to a file, where the disk takes one."""
        if not self._in_memory:
            return
        rows = list(self._in_memory.values())
        try:
            path = await self._write_file(rows)
        except OSError as error:
            logger.error(  # noqa: TRY400  # it says all
                "%d answered generations are lost: no disk took them (%s)", len(rows), error
            )
        else:
            logger.warning("%d rows wait in %s for the next start", len(rows), path)


def _reason(words: str, error: OSError | None) -> str:
    """Returns the words with the system's, e.g. No space left on device, but without a path."""
    return f"{words} ({error.strerror})" if error is not None and error.strerror else words


def _rests(path: Path) -> bool:
    """Whether its rows were set apart, or tried again, a short while ago."""
    try:
        return APART in path.name and time.time() - path.stat().st_mtime < APART_RETRY_S
    except FileNotFoundError:
        return False


async def _replay(file: JournalFile, start: int, hand_over: HandOver) -> int:
    """Hand over the rows from an offset on. Returns the offset after them."""
    while True:
        found = await asyncio.to_thread(_read_some, file, start)
        if not found:
            return start
        rows = []
        for line in found:
            if line.record is None:
                continue
            keyed = lines.to_row(line.record)
            if keyed is None:
                raise JournalUnavailable(f"{file.path} holds what this version can't read")
            rows.append(keyed)
        await hand_over(rows)
        start = found[-1].end


def _read_some(file: JournalFile, start: int) -> list[lines.Line]:
    """Returns the next lines, as many as are stored at once."""
    found: list[lines.Line] = []
    for line in islice(file.read(start), REPLAY_ROWS):
        found.append(line)
        if line.end - start > REPLAY_BYTES:
            break
    return found
