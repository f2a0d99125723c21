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
        self._inode = 0  # of the file that was counted
        self._counted_to = 0  # the offset up to which it was
        self._ids: set[str] = set()  # of its letters up to there

    def add(self, keyed: KeyedRow, error: str) -> None:
        """Durable when it returns. Raises `OSError`, and leaves the file as it was."""
        record = {**lines.from_row(keyed), "error": error, "at": datetime.now(UTC).isoformat()}
        with self.locked():
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                files.give_to_owner_of(self.path.parent, descriptor)
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
        """Returns how many there are. Reads only what was added since it last looked."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return 0
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._counted_to:
                self._inode, self._counted_to, self._ids = status.st_ino, 0, set()
            file.seek(self._counted_to)
            for line in file:
                if not line.endswith(b"\n"):  # torn, or not whole yet
                    break
                self._counted_to += len(line)
                record = lines.decode(line[:-1]) or {}
                if record.get("v") in lines.VERSIONS and "row" in record:
                    self._ids.add(record["row"]["id"])
        return len(self._ids)

    def find(self, token: UUID) -> KeyedRow | None:
        """Returns the row of the claim with this token."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return None
        needle = str(token).encode()
        with file:
            for line in file:
                keyed = lines.to_row(lines.decode(line[:-1]) or {}) if needle in line else None
                if keyed is not None and keyed.claim is not None and keyed.claim.token == token:
                    return keyed
        return None

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
            files.give_to_owner_of(self._lock.parent, self._lock)
            yield
