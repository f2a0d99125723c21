"""A user's words leave the files of this host; rows and figures stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from generation.effects import Effect
from generation.journal import lines
from generation.journal.dead_letters import DeadLetters
from generation.journal.erasing import HostFiles, Left
from generation.journal.file import JournalFile, list_files
from generation.journal.spool import APART
from generation.privacy.encryption import TEXTS
from tests.support.rows import make_claim, make_row

CANARY = "canary-5e0c"
CAPACITY = 65_536


def private(**changes):
    """A row of user 1 with a canary wherever a caller's or a provider's words go."""
    words: dict[str, Any] = dict.fromkeys((*TEXTS, "request_id", "trace_id"), CANARY)
    words["metadata"] = {CANARY: CANARY}
    row = make_row(claim=make_claim(CANARY), **words, **changes)
    return replace(row, effects=(Effect("auth.Group", {"name": CANARY}),))


def theirs():
    return make_row("of user 2", user_id=2)


def write(folder, *rows, database="db", mark=""):
    file = JournalFile.create(folder, database, CAPACITY, mark=mark)
    file.append([lines.encode(lines.from_row(row)) for row in rows])
    return file


def rows_in(path):
    file = JournalFile.adopt(path)
    try:
        return [lines.to_row(line.record) for line in file.read() if line.record]
    finally:
        file.close()


def has_canary(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if CANARY.encode() in path.read_bytes()}


@pytest.mark.parametrize("mark", ["", APART])
def test_the_journal_of_a_dead_process_is_rewritten_and_loses_no_row(tmp_path, mark):
    mine, other = private(), theirs()
    write(tmp_path, mine, other, mark=mark).close()
    erased = HostFiles(tmp_path, "db")
    assert erased.count(1) == Left(1, 0)
    erased.erase(1)
    assert erased.count(1) == Left(0, 0)
    assert has_canary(tmp_path) == set()
    (path,) = list_files(tmp_path, "db")
    assert (mark in path.name) is True
    blank, same = rows_in(path)
    assert same == other
    assert blank.claim is None
    assert (blank.row.id, blank.row.cost_usd) == (mine.row.id, mine.row.cost_usd)
    assert (blank.row.result, blank.row.metadata) == ("", {})


def test_a_line_that_nobody_can_read_goes_with_the_file(tmp_path):
    file = write(tmp_path, private())
    file.append([b"00000000 " + CANARY.encode() + b"\n"])
    file.close()
    HostFiles(tmp_path, "db").erase(1)
    assert has_canary(tmp_path) == set()


def test_the_journal_of_a_living_process_is_left_to_it(tmp_path):
    living = write(tmp_path, private())
    files = HostFiles(tmp_path, "db")
    files.erase(1)
    assert files.count(1) == Left(1, 0), "it is counted, so that nobody believes it gone"
    assert rows_of_the_living(living)
    living.close()


def rows_of_the_living(file):
    return [line for line in file.read() if line.record]


def test_the_journal_of_another_database_names_other_users(tmp_path):
    write(tmp_path, private(), database="other").close()
    files = HostFiles(tmp_path, "db")
    files.erase(1)
    assert files.count(1) == Left(0, 0)
    assert len(has_canary(tmp_path)) == 1


def test_a_dead_letter_stays_without_words(tmp_path):
    letters = DeadLetters(tmp_path, "db")
    mine, other = private(), theirs()
    letters.add(mine, "PostgreSQL can't store the row (23514)")
    letters.add(other, "why")
    files = HostFiles(tmp_path, "db")
    assert files.count(1) == Left(0, 1)
    files.erase(1)
    assert files.count(1) == Left(0, 0)
    assert has_canary(tmp_path) == set()
    first, second = letters.read()
    assert (first.keyed.row.id, first.error) == (
        mine.row.id,
        "PostgreSQL can't store the row (23514)",
    )
    assert (second.keyed, second.error) == (other, "why")


def test_a_host_without_files_has_nothing(tmp_path):
    files = HostFiles(tmp_path / "none", "db")
    files.erase(1)
    assert files.count(1) == Left(0, 0)
