"""Dead letters: rows that PostgreSQL refuses, set aside with the reason for an operator."""

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

    from generation.records import KeyedRow

SUFFIX = ".refused"
LOCK_SUFFIX = ".refused.lock"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that PostgreSQL refused."""

    keyed: KeyedRow
    error: str
    at: str  # ISO 8601


class DeadLetters:
    """One file for all processes; a process that changes it holds its lock meanwhile.

    The file is replaced, not edited, so the lock is on a file beside it.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.path = folder / f"{database}{SUFFIX}"
        self._lock = folder / f"{database}{LOCK_SUFFIX}"
        self._counted: tuple[tuple[int, ...], int] = ((), 0)  # a version of the file, its letters

    def add(self, keyed: KeyedRow, error: str) -> None:
        """Durable when it returns. Raises `OSError`, and leaves the file as it was."""
        record = {**lines.from_row(keyed), "error": error, "at": datetime.now(UTC).isoformat()}
        with self.locked():
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                end = os.fstat(descriptor).st_size
                # A line that a crash tore must not spoil this one.
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

    def read(self) -> list[DeadLetter]:
        """Returns each row once: it may have been refused again on its way from a journal."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        found: dict[UUID, DeadLetter] = {}
        for line in lines.read(data):
            keyed = lines.to_row(line.record) if line.record else None
            if line.record and keyed is not None:
                letter = DeadLetter(keyed, line.record["error"], line.record["at"])
                found[keyed.row.id] = letter
        return list(found.values())

    def count(self) -> int:
        """Returns how many there are; they may be many, so it reads only a file that changed."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return 0
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._counted[0] != version:
            self._counted = (version, len(self.read()))
        return self._counted[1]

    def remove(self, ids: Collection[UUID]) -> None:
        """Take rows out while `locked()`. The other lines stay as they are, to the byte."""
        data = self.path.read_bytes()
        kept, start = [], 0
        for line in lines.read(data):
            keyed = lines.to_row(line.record) if line.record else None
            if keyed is None or keyed.row.id not in ids:
                kept.append(data[start : line.end])
            start = line.end
        draft = self.path.with_suffix(".refused-draft")
        files.replace(self.path, b"".join(kept), draft=draft)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file for this process."""
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.held(self._lock):
            yield
