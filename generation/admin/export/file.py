"""An export on a disk, which goes on after it was cut off at any point.

Until it is complete, the file is FILE.part; FILE.resume says how much of that is good, and what
follows it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import orjson

from generation.admin.export.formats import FORMATS, Format, ParquetDraft, finish_parquet
from generation.files import give_to_owner_of, sync_folder
from generation.files import replace as replace_file
from generation.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from generation.admin.export.formats import Columns


class Unusable(Exception):
    """The file can't be begun, or gone on with. Its text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an export is of, and how far it is."""

    query: str  # of the list's address
    format: str
    with_texts: bool
    until: UUID
    columns: list[str]
    after: UUID | None = None
    rows: int = 0
    bytes: int = 0  # of the draft


class ExportFile:
    """Nobody else may read it: it may hold prompts."""

    def __init__(self, path: Path, progress: Progress, descriptor: int, content: Format) -> None:
        self.path = path
        self.progress = progress
        self.content = content
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def begin(cls, path: Path, progress: Progress, columns: Columns) -> Iterator[ExportFile]:
        """Raises `Unusable`, `FormatMissing` and `OSError`."""
        if path.exists():
            raise Unusable(f"{path} is there already. Remove it, or choose another name.")
        if _draft(path).exists():
            raise Unusable(
                f"{path} was begun already. Go on with `--resume {path}`, or remove {_draft(path)}."
            )
        content = _content(progress, columns)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with _locked(os.open(_draft(path), flags, 0o600), path) as descriptor:
            give_to_owner_of(path.parent, descriptor)
            file = cls(path, progress, descriptor, content)
            file.add(content.begin())
            file.save(progress.after)
            yield file

    @classmethod
    @contextlib.contextmanager
    def resume(cls, path: Path, progress: Progress, columns: Columns) -> Iterator[ExportFile]:
        """Raises `Unusable`, `FormatMissing` and `OSError`."""
        content = _content(progress, columns)
        with _locked(os.open(_draft(path), os.O_RDWR), path) as descriptor:
            if os.fstat(descriptor).st_size < progress.bytes:
                raise Unusable(f"{_draft(path)} has lost its end. Remove it, and begin again.")
            os.ftruncate(descriptor, progress.bytes)
            os.lseek(descriptor, 0, os.SEEK_END)
            yield cls(path, progress, descriptor, content)

    def add(self, content: bytes, rows: int = 0) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self._descriptor, view) :]
        done = self.progress
        self.progress = replace(done, rows=done.rows + rows, bytes=done.bytes + len(content))

    def save(self, after: UUID | None) -> None:
        """What was added, up to this id, is kept, whatever happens from here on."""
        self.progress = replace(self.progress, after=after)
        os.fdatasync(self._descriptor)
        state = _state(self.path)
        content = orjson.dumps(asdict(self.progress), default=str)
        replace_file(state, content, draft=state.with_name(f"{state.name}.new"))

    def complete(self) -> None:
        """Give the file its name."""
        self.add(self.content.end())
        self.save(self.progress.after)
        draft = _draft(self.path)
        if self.progress.format == "parquet":
            draft = self._as_parquet(draft)
        draft.rename(self.path)
        _draft(self.path).unlink(missing_ok=True)
        _state(self.path).unlink(missing_ok=True)
        sync_folder(self.path.parent)

    @staticmethod
    def _as_parquet(draft: Path) -> Path:
        whole = draft.with_name(f"{draft.name}.whole")
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with draft.open("rb") as source, os.fdopen(descriptor, "wb") as file:
            give_to_owner_of(draft.parent, descriptor)
            finish_parquet(source, file)
            file.flush()
            os.fsync(descriptor)
        return whole


def read_progress(path: Path) -> Progress:
    """Raises `Unusable`."""
    if path.exists() and not _draft(path).exists():  # the state may be left of a crash at the end
        raise Unusable(f"There is nothing to resume: {path} is complete.")
    try:
        state = orjson.loads(_state(path).read_bytes())
        state["until"] = UUID(state["until"])
        state["after"] = UUID(state["after"]) if state["after"] else None
        return Progress(**state)
    except FileNotFoundError:
        raise Unusable(f"There is nothing to resume: no export to {path} was begun.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise Unusable(f"{_state(path)} can't be read. Remove it, and begin again.") from error


def _content(progress: Progress, columns: Columns) -> Format:
    if progress.columns != [each.attname for each in columns]:
        raise Unusable("The log has other columns than when the export began. Begin again.")
    kind = ParquetDraft if progress.format == "parquet" else FORMATS[progress.format]
    return kind(columns)


@contextlib.contextmanager
def _locked(descriptor: int, path: Path) -> Iterator[int]:
    try:
        if not try_lock(descriptor):
            raise Unusable(f"Another run writes {path}.")
        yield descriptor
    finally:
        os.close(descriptor)


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _state(path: Path) -> Path:
    return path.with_name(f"{path.name}.resume")
