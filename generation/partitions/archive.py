"""A partition as a file, which is read back before it counts."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction

from generation.files import give_to_owner_of, replace, sync_folder
from generation.partitions import ddl
from generation.partitions.archive_formats import ArchiveSpoiled
from generation.partitions.catalog import ARCHIVED
from generation.partitions.intervals import WEEK, first_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime, timedelta
    from pathlib import Path
    from typing import BinaryIO

    from django.db.backends.base.base import BaseDatabaseWrapper

    from generation.partitions.archive_formats import Format
    from generation.partitions.catalog import Found, Partition

BEFORE_DROP = WEEK  # a partition is due this long before it is dropped, for a job that runs daily
PROGRESS_ROWS = 1_000_000


def due(found: Found, kept: timedelta, before: datetime | None) -> list[Partition]:
    """Returns the partitions that lie wholly before a moment; by default, those that are dropped
    within a week. None that may still get new rows is among them.
    """
    until = first_id(min(before or found.now - kept + BEFORE_DROP, found.now))
    return [
        part for part in found.partitions if not part.is_pending and part.start < part.end <= until
    ]


@dataclass(frozen=True, slots=True)
class Archive:
    """Writes partitions of one database into one folder."""

    connection: BaseDatabaseWrapper
    folder: Path
    file_format: Format
    # Called with a partition's rows and its file, which has its name, before it is read.
    announce: Callable[[int, Path], None]
    report: Callable[[str], None]

    def add(self, found: Found, part: Partition) -> None:
        """Write a partition, unless this was done and no row has come since.

        The file gets its name once it is complete, on the disk and verified; beside it is one for
        `sha256sum -c`. The partition is then marked, so that maintenance may drop it. Memory holds
        what the format gathers. Raises `OSError`, `ArchiveSpoiled`, Django's errors of the
        database, and what `announce` raises.
        """
        path = self.folder / f"{part.name}.{self.file_format.suffix}"
        table = found.parent.quoted(part.name)
        rows, mark = self._count(table)
        if path.exists() and mark == _mark(rows):  # a journal may have brought some since
            self.report(f"{part.name}: is archived")
            return
        self.announce(rows, path)
        draft = path.with_name(f"{path.name}.part")
        try:
            rows = self._write(part.name, table, draft)
            with draft.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = draft.stat().st_size
            draft.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        checksum = path.with_name(f"{path.name}.sha256")
        content = f"{digest}  {path.name}\n".encode()
        replace(checksum, content, draft=checksum.with_name(f"{checksum.name}.part"))
        sync_folder(self.folder)
        with self.connection.cursor() as cursor:
            cursor.execute(ddl.mark(found.parent, part.name, _mark(rows)))
        self.report(f"{part.name}: {rows:,} rows in {size:,} bytes")

    def _count(self, table: str) -> tuple[int, str]:
        """Returns how many rows a partition has, and its comment."""
        with self._unhurried() as cursor:
            cursor.execute(
                f"SELECT count(*), obj_description(to_regclass(%s), 'pg_class') FROM ONLY {table}",  # noqa: S608  # a quoted name
                [table],
            )
            rows, comment = cursor.fetchone()
        return rows, comment or ""

    def _write(self, name: str, table: str, draft: Path) -> int:
        """Returns how many rows were written, once the disk has them and they were read back."""
        with _created(draft) as file, self._unhurried() as cursor:
            written = self.file_format.write(cursor, table, file, partial(self._count_up, name))
            counted = cursor.rowcount
            file.flush()
            os.fsync(file.fileno())
        if counted != written.rows:
            raise ArchiveSpoiled(f"PostgreSQL counts {counted} rows of {name}, not {written.rows}")
        if self.file_format.read(draft) != written:
            raise ArchiveSpoiled(f"{draft} can't be read as it was written; is the disk sound?")
        return written.rows

    def _count_up(self, name: str, rows: int) -> None:
        if rows % PROGRESS_ROWS == 0:
            self.report(f"{name}: {rows:,} rows so far")

    @contextlib.contextmanager
    def _unhurried(self) -> Iterator[Any]:
        """A cursor in a transaction without a limit of time, and with times in UTC."""
        with transaction.atomic(self.connection.alias), self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('statement_timeout', '0', true),"
                " set_config('TimeZone', 'UTC', true)"
            )
            yield cursor


def _mark(rows: int) -> str:
    return f"{ARCHIVED}, {rows} rows"


@contextlib.contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file that its owner alone may read: it holds prompts."""
    path.unlink(missing_ok=True)  # of a run that was killed
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        give_to_owner_of(path.parent, file.fileno())
        yield file
