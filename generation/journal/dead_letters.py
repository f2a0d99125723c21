"""Rows that PostgreSQL refuses, set aside with the reason, until an operator decides."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from generation import files, locks
from generation.journal import lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from generation.records import LogRow

SUFFIX = ".refused"
LOCK_SUFFIX = ".refused.lock"


@dataclass(frozen=True, slots=True)
class Refused:
    row: LogRow
    error: str
    at: str  # ISO 8601


class RefusedRows:
    """One file for all processes; whoever reads or writes it holds its lock for that long.

    The file is replaced, not edited, so the lock is on a file beside it.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.path = folder / f"{database}{SUFFIX}"
        self._lock = folder / f"{database}{LOCK_SUFFIX}"
        self._counted: tuple[tuple[int, ...], int] = ((), 0)  # of which file, how many

    def add(self, row: LogRow, error: str) -> None:
        """Durable when it returns. Raises `OSError`, and the file is as it was then."""
        record = {**lines.from_row(row), "error": error, "at": datetime.now(UTC).isoformat()}
        with self.locked():
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                end = os.fstat(descriptor).st_size
                # A line that a crash tore must not take this one along.
                is_torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
                try:
                    files.write_all(descriptor, b"\n" * is_torn + lines.encode(record), end)
                    os.fdatasync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, end)
                    raise
            finally:
                os.close(descriptor)
            files.sync_folder(self.path.parent)

    def read(self) -> list[Refused]:
        """Each row once, though it may have been refused again on its way from a journal."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        found: dict[UUID, Refused] = {}
        for line in lines.read(data):
            row = lines.to_row(line.record) if line.record else None
            if line.record and row is not None:
                found[row.id] = Refused(row, line.record["error"], line.record["at"])
        return list(found.values())

    def count(self) -> int:
        """How many rows there are. They may be many, so they are read only where they changed."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return 0
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._counted[0] != version:
            self._counted = (version, len(self.read()))
        return self._counted[1]

    def remove(self, ids: Collection[UUID]) -> None:
        """Take rows out; call it while `locked()`. The others stay as they are, to the byte."""
        data = self.path.read_bytes()
        kept, start = [], 0
        for line in lines.read(data):
            row = lines.to_row(line.record) if line.record else None
            if row is None or row.id not in ids:
                kept.append(data[start : line.end])
            start = line.end
        draft = self.path.with_suffix(".refused-draft")
        files.replace(self.path, b"".join(kept), draft=draft)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.held(self._lock):
            yield
