"""A partition as a file: one JSON object a line, compressed, and read back before it counts."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction

from generation.files import give_to_owner_of, replace, sync_folder
from generation.partitions import ddl
from generation.partitions.catalog import ARCHIVED
from generation.partitions.intervals import WEEK, first_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime, timedelta
    from pathlib import Path
    from typing import BinaryIO

    from django.db.backends.base.base import BaseDatabaseWrapper

    from generation.partitions.catalog import Found, Partition

BEFORE_DROP = WEEK  # a partition is due this long before it is dropped, for a job that runs daily
PROGRESS_ROWS = 1_000_000
COMPRESSION = 6
CHUNK = 1024 * 1024


class ArchiveSpoiled(Exception):
    """What was read back is not what PostgreSQL gave, e.g. because of a bad disk."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, uncompressed."""

    rows: int
    digest: bytes  # SHA-256


def due(found: Found, kept: timedelta, before: datetime | None) -> list[Partition]:
    """Returns the partitions that lie wholly before a moment; by default, those that are dropped
    within a week. None that may still get new rows is among them.
    """
    until = first_id(min(before or found.now - kept + BEFORE_DROP, found.now))
    return [
        part for part in found.partitions if not part.is_pending and part.start < part.end <= until
    ]


def archive(
    connection: BaseDatabaseWrapper,
    found: Found,
    part: Partition,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Write a partition into a folder, unless this was done and no row has come since.

    The file gets its name once it is complete, on the disk and verified; beside it is one for
    `sha256sum -c`. The partition is then marked, so that maintenance may drop it. Memory holds one
    row at a time. Raises `OSError`, `ArchiveSpoiled` and Django's errors of the database.
    """
    path = folder / f"{part.name}.ndjson.gz"
    if path.exists() and part.is_archived and _is_marked(connection, found, part.name):
        report(f"{part.name}: is archived")
        return
    draft = path.with_name(f"{path.name}.part")
    try:
        written = _write(connection, found, part.name, draft, report)
        _verify(draft, written)
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
    sync_folder(folder)
    with connection.cursor() as cursor:
        cursor.execute(ddl.mark(found.parent, part.name, _mark(written.rows)))
    report(f"{part.name}: {written.rows:,} rows in {size:,} bytes")


def _mark(rows: int) -> str:
    return f"{ARCHIVED}, {rows} rows"


def _is_marked(connection: BaseDatabaseWrapper, found: Found, name: str) -> bool:
    """Whether it was archived with as many rows as it has: a journal may bring some late."""
    quoted = found.parent.quoted(name)
    with _unhurried(connection) as cursor:
        cursor.execute(
            f"SELECT count(*), obj_description(to_regclass(%s), 'pg_class') FROM ONLY {quoted}",  # noqa: S608  # a quoted name
            [quoted],
        )
        rows, comment = cursor.fetchone()
    return bool(comment == _mark(rows))


def _write(
    connection: BaseDatabaseWrapper,
    found: Found,
    name: str,
    draft: Path,
    report: Callable[[str], None],
) -> Content:
    rows, digest = 0, hashlib.sha256()
    sql = f"COPY (SELECT row_to_json(part) FROM ONLY {found.parent.quoted(name)} AS part) TO STDOUT"  # noqa: S608  # a quoted name
    with _created(draft) as file, _unhurried(connection) as cursor:
        with (
            gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed,
            cursor.copy(sql) as copy,
        ):
            for (text,) in copy.rows():
                line = f"{text}\n".encode()
                packed.write(line)
                digest.update(line)
                rows += 1
                if rows % PROGRESS_ROWS == 0:
                    report(f"{name}: {rows:,} rows so far")
        if cursor.rowcount != rows:
            raise ArchiveSpoiled(f"PostgreSQL counts {cursor.rowcount} rows of {name}, not {rows}")
        file.flush()
        os.fsync(file.fileno())
    return Content(rows, digest.digest())


def _verify(path: Path, written: Content) -> None:
    """Raises `ArchiveSpoiled` if the file doesn't hold what was written."""
    rows, digest = 0, hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while chunk := file.read(CHUNK):
                rows += chunk.count(b"\n")
                digest.update(chunk)
    except (EOFError, gzip.BadGzipFile) as error:
        raise ArchiveSpoiled(f"{path} can't be read as it was written: {error}") from error
    if Content(rows, digest.digest()) != written:
        raise ArchiveSpoiled(f"{path} can't be read as it was written; is the disk sound?")


@contextlib.contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file that its owner alone may read: it holds prompts."""
    path.unlink(missing_ok=True)  # of a run that was killed
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        give_to_owner_of(path.parent, file.fileno())
        yield file


@contextlib.contextmanager
def _unhurried(connection: BaseDatabaseWrapper) -> Iterator[Any]:
    """A cursor in a transaction without a limit of time, and with times in UTC."""
    with transaction.atomic(connection.alias), connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('statement_timeout', '0', true), set_config('TimeZone', 'UTC', true)"
        )
        yield cursor
