"""One journal file. Its space is reserved when it is created, and its process holds its lock."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from generation import files, locks
from generation.journal import lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from generation.records import KeyRef

SUFFIX = ".journal"
HEADER_BYTES = 1024  # more than the first line takes
_DRAFT_PREFIX = ".draft-"
_ZEROS = bytes(1024 * 1024)


class JournalFull(Exception):  # a state, not a fault
    """The reserved space has no room for these lines."""


class JournalFile:
    """Appends survive a crash once `append()` has returned. Not safe for two threads at once.

    Every method raises `OSError` where the disk fails.
    """

    def __init__(self, path: Path, descriptor: int, database: str) -> None:
        self.path = path
        self.database = database  # the identity of the database that the rows are for
        self._descriptor = descriptor
        self.capacity = os.fstat(descriptor).st_size
        self._header_end = 0
        self.end = 0  # offset after the last line
        self.garbled = 0  # lines that were torn or damaged

    @classmethod
    def create(cls, folder: Path, database: str, capacity: int, *, mark: str = "") -> JournalFile:
        """Create a file with `capacity` bytes reserved, under a new name that has the mark."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{database}.{mark}{uuid4().hex[:12]}{SUFFIX}"
        draft = folder / f"{_DRAFT_PREFIX}{name}"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            files.give_to_owner_of(folder, descriptor)
            locks.try_lock(descriptor)  # always free: no other process knows the draft's name
            _reserve(descriptor, capacity)
            file = cls(folder / name, descriptor, database)
            file.append([lines.encode({"staccato_journal": lines.VERSION, "database": database})])
            file._header_end = file.end
            draft.rename(file.path)
            files.sync_folder(folder)
        except BaseException:
            draft.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return file

    @classmethod
    def adopt(cls, path: Path) -> JournalFile | None:
        """Take over the file of a process that has died.

        Returns None while its owner lives, or where the file is gone.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            # Another adopter may have removed the file after we opened it and before we locked it.
            if locks.try_lock(descriptor) and locks.is_same_file(descriptor, path):
                file = cls(path, descriptor, "")
                file._find_end()
                return file
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def is_empty(self) -> bool:
        return self.end == self._header_end

    @property
    def is_removed(self) -> bool:
        """Whether the file was unlinked: it takes lines that no other process can find."""
        return os.fstat(self._descriptor).st_nlink == 0

    @property
    def free(self) -> int:
        return self.capacity - self.end

    def append(self, encoded: list[bytes]) -> None:
        """Write lines and wait until the disk has them. Raises `JournalFull` before writing."""
        data = b"".join(encoded)
        if len(data) > self.free:
            raise JournalFull
        files.write_all(self._descriptor, data, self.end)
        os.fdatasync(self._descriptor)
        self.end += len(data)

    def read(self, start: int = 0) -> Iterator[lines.Line]:
        """Yields the lines after the header, or from an offset that is the `end` of a line."""
        with self._mapped() as data:
            for line in lines.read(data, start or self._header_end):
                if line.end > self.end:
                    return
                yield line

    def clear(self) -> None:
        """Forget all lines; the space stays reserved."""
        for start in range(self._header_end, self.end, len(_ZEROS)):
            files.write_all(self._descriptor, _ZEROS[: self.end - start], start)
        os.fdatasync(self._descriptor)
        self.end = self._header_end

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        files.sync_folder(self.path.parent)
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def _find_end(self) -> None:
        with self._mapped() as data:
            for line in lines.read(data):
                if self.end == 0:
                    header = line.record or {}
                    self.database = str(header.get("database", ""))
                    self._header_end = line.end
                elif line.record is None:
                    self.garbled += 1
                self.end = line.end

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[mmap.mmap | bytes]:
        if self.capacity == 0:
            yield b""
            return
        with mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ) as data:
            yield data


def list_files(folder: Path, database: str) -> list[Path]:
    """Returns the journals for a database, oldest first."""
    found = folder.glob(f"{database}.*{SUFFIX}")
    return sorted(found, key=lambda path: path.stat().st_mtime if path.exists() else 0)


def keys_in(folder: Path, database: str) -> set[KeyRef]:
    """Returns the idempotency keys of all rows in all journals for a database.

    Living processes write meanwhile: a line that is not whole yet is left out.
    """
    found = set()
    for path in list_files(folder, database):
        try:
            with (
                path.open("rb") as opened,
                mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                found |= lines.keys_in(data)
        except (OSError, ValueError):  # it has gone, or is empty
            continue
    return found


def remove_drafts(folder: Path) -> None:
    """Remove the files of processes that died while creating them; these never held a row."""
    for draft in folder.glob(f"{_DRAFT_PREFIX}*"):
        orphan = JournalFile.adopt(draft)
        if orphan is not None:
            orphan.remove()


def _reserve(descriptor: int, capacity: int) -> None:
    """Take the space now, so that a disk that fills up later does no harm."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, capacity)
        return
    for start in range(0, capacity, len(_ZEROS)):  # macOS
        files.write_all(descriptor, _ZEROS[: capacity - start], start)
