"""Takes a user's words out of the journals and dead letters of this host.

The rows stay, with their tokens and cost: the service stores them as it would have.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from generation import files
from generation.journal import file as journal_file
from generation.journal import lines
from generation.journal.dead_letters import DeadLetters
from generation.journal.file import HEADER_BYTES, JournalFile
from generation.journal.spool import APART
from generation.privacy.encryption import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from generation.records import UserKey

# By field of a row, what is left of the user's words, and of what they brought about.
BLANK: dict[str, Any] = {
    **dict.fromkeys(TEXTS, ""),
    **dict.fromkeys(("request_id", "trace_id"), ""),
    "metadata": {},
}
# The same of a row that is an operator's, who has sent the user's prompt again.
BLANK_TEXTS: dict[str, Any] = dict.fromkeys(TEXTS, "")


class Left(NamedTuple):
    """How many rows still have a user's words."""

    waiting: int  # in journals
    refused: int  # among the dead letters


class HostFiles:
    """The files of one database, by its identity; those of others name other users."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder = folder
        self._database = database
        self._dead_letters = DeadLetters(folder, database)

    def count(self, user_id: UserKey) -> Left:
        """Raises `OSError`."""
        paths = journal_file.list_files(self._folder, self._database)
        waiting = [record for path in paths for record in _records_in(path)]
        refused = _records_in(self._dead_letters.path)
        return Left(*(_count(records, user_id) for records in (waiting, refused)))

    def erase(self, user_id: UserKey) -> None:
        """Rewrite what no living process writes to: that stores its rows by itself, soon.

        Damaged lines, which nobody can read, are dropped from the files that are rewritten. Raises
        `OSError`, and then leaves the file at fault as it was.
        """
        for path in journal_file.list_files(self._folder, self._database):
            if _count(_records_in(path), user_id):
                self._rewrite(path, user_id)
        if not _count(_records_in(self._dead_letters.path), user_id):
            return
        with self._dead_letters.locked():
            path = self._dead_letters.path
            blanked = _blank(_records_in(path), user_id)
            files.replace(path, b"".join(blanked), draft=path.with_suffix(".refused-draft"))

    def _rewrite(self, path: Path, user_id: UserKey) -> None:
        """The new file is complete before the old one goes; rows that are in both are stored once,
        by their ids."""
        old = JournalFile.adopt(path)
        if old is None:
            return
        try:
            blanked = _blank((line.record for line in old.read() if line.record), user_id)
            size = HEADER_BYTES + sum(map(len, blanked))
            mark = APART if APART in path.name else ""
            new = JournalFile.create(self._folder, old.database, size, mark=mark)
            try:
                new.append(blanked)
            finally:
                new.close()
            old.clear()
            path.unlink()
            files.sync_folder(self._folder)
        finally:
            old.close()


def _records_in(path: Path) -> Iterator[dict[str, Any]]:
    """Yields what can be read. A living process may write meanwhile."""
    try:
        with (
            path.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for line in lines.read(data):
                if line.record is not None:
                    yield line.record
    except (FileNotFoundError, ValueError):  # it has gone, or is empty
        return


def _count(records: Any, user_id: UserKey) -> int:
    return sum(_has_words(record, user_id) for record in records)


def _has_words(record: dict[str, Any], user_id: UserKey) -> bool:
    row = record.get("row")
    if not isinstance(row, dict):
        return False
    if row.get("user_id") == user_id and (record.get("claim") or record.get("effects")):
        return True
    return any(row.get(name) for name in _blank_of(row, user_id))


def _blank_of(row: dict[str, Any], user_id: UserKey) -> dict[str, Any]:
    """Returns by field what is left of the user's words in a row."""
    if row.get("user_id") == user_id:
        return BLANK
    return BLANK_TEXTS if row.get("author_id") == user_id else {}


def _blank(records: Any, user_id: UserKey) -> list[bytes]:
    """Returns the records as lines; those of the user without words, without idempotency key, and
    without effects, whose words are in columns that we don't know."""
    return [
        lines.encode(
            {
                **{name: value for name, value in record.items() if name != "effects"},
                "row": {**record["row"], **_fields_of(record["row"], user_id)},
                "claim": None,
            }
            if _has_words(record, user_id)
            else record
        )
        for record in records
    ]


def _fields_of(row: dict[str, Any], user_id: UserKey) -> dict[str, Any]:
    """Only those that the row has: an older version knew fewer."""
    return {name: empty for name, empty in _blank_of(row, user_id).items() if name in row}
