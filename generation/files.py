"""Writes that a crash leaves whole: complete, or as if they had not begun."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace(path: Path, content: bytes, *, draft: Path, durable: bool = True) -> None:
    """Write a draft beside the file and rename it, so that readers see the old content or the new.

    With `durable`, the new content survives a crash of the machine once this has returned;
    without, only a crash of the process. Raises `OSError`.
    """
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        give_to_owner_of(path.parent, descriptor)
        write_all(descriptor, content, 0)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    draft.rename(path)
    if durable:
        sync_folder(path.parent)


def give_to_owner_of(folder: Path, file: Path | int) -> None:
    """Where root made a file, e.g. in a command with sudo, the folder's owner must be able to go on
    with it. Raises `OSError`."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of it: a disk that is nearly full takes a part, and fails at the next write."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def sync_folder(folder: Path) -> None:
    """Make names durable: a rename or an unlink changes the folder's own data."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
