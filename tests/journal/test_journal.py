"""The journal's files: what an append promises, and which process may take over."""

from __future__ import annotations

import os
import stat
import subprocess
from uuid import UUID

import pytest

from generation.journal import lines
from generation.journal.dead_letters import DeadLetters
from generation.journal.file import (
    JournalFile,
    JournalFull,
    keys_in,
    list_files,
    remove_drafts,
)
from generation.records import KeyedRow
from tests.support.rows import make_claim, make_row

CAPACITY = 65_536


def encode(*rows: KeyedRow) -> list[bytes]:
    return [lines.encode(lines.from_row(row)) for row in rows]


def rows_of(file: JournalFile) -> list[KeyedRow]:
    return [lines.to_row(line.record) for line in file.read() if line.record]


def abandon(file: JournalFile) -> JournalFile:
    """As if its process had died: the lock goes, the file stays; then a sibling comes."""
    file.close()
    adopted = JournalFile.adopt(file.path)
    assert adopted is not None
    return adopted


@pytest.fixture
def journal(tmp_path):
    return JournalFile.create(tmp_path / "journal", "db", CAPACITY)


@pytest.mark.parametrize(
    "row",
    [
        make_row(),
        make_row("ünïcode \U0001f600 \n newline \t \u2028"),
        make_row(cost_usd=None, input_tokens=None, attempts=(), status="failed"),
        make_row(claim=make_claim()),
    ],
)
def test_a_row_comes_back_as_it_was(journal, row):
    journal.append(encode(row))
    assert rows_of(abandon(journal)) == [row]


def test_the_file_is_private_and_its_space_is_taken_at_its_making(journal):
    status = journal.path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    assert status.st_size == CAPACITY
    assert status.st_blocks * 512 >= CAPACITY, "the space is only promised: a full disk would bite"


def test_standard_tools_can_read_it(journal):
    row = make_row("readable")
    journal.append(encode(row))
    shown = subprocess.run(
        f"tr -d '\\0' < {journal.path} | cut -c10-", shell=True, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    header, line = shown.splitlines()
    assert header == '{"staccato_journal":2,"database":"db"}'
    assert '"result":"readable"' in line


def test_a_torn_tail_is_skipped_and_counted(journal):
    kept, torn = make_row("kept"), make_row("torn")
    journal.append(encode(kept))
    half = encode(torn)[0][:-30]
    os.pwrite(os.open(journal.path, os.O_RDWR), half, journal.end)
    adopted = abandon(journal)
    assert rows_of(adopted) == [kept]
    assert adopted.garbled == 1


def test_a_damaged_line_costs_itself_and_no_other(journal):
    first, second, third = make_row("1"), make_row("2"), make_row("3")
    journal.append(encode(first))
    place = journal.end + 40
    journal.append(encode(second, third))
    os.pwrite(os.open(journal.path, os.O_RDWR), b"###", place)
    adopted = abandon(journal)
    assert rows_of(adopted) == [first, third]
    assert adopted.garbled == 1


def test_what_does_not_fit_is_refused_before_anything_is_written(journal):
    row = make_row("x" * 20_000)
    journal.append(encode(row, row))
    with pytest.raises(JournalFull):
        journal.append(encode(row, row))
    assert len(rows_of(journal)) == 2
    journal.append(encode(make_row("small")))
    assert len(rows_of(abandon(journal))) == 3


def test_clearing_forgets_the_rows_and_keeps_the_space(journal):
    journal.append(encode(make_row("x" * 20_000)))
    journal.clear()
    assert journal.is_empty
    assert rows_of(journal) == []
    row = make_row("after")
    journal.append(encode(row))
    adopted = abandon(journal)
    assert rows_of(adopted) == [row]
    assert adopted.garbled == 0
    assert adopted.capacity == CAPACITY


def test_a_living_owners_file_is_not_taken(journal):
    assert JournalFile.adopt(journal.path) is None


def test_a_dead_owners_file_is_taken_by_one(journal):
    journal.close()
    taken = [JournalFile.adopt(journal.path) for _ in range(3)]
    assert sum(file is not None for file in taken) == 1


def test_a_file_that_another_adopter_removed_meanwhile_is_left(journal, monkeypatch):
    journal.append(encode(make_row()))
    journal.close()
    opened = os.open

    def open_and_lose_the_race(path, flags, *mode, **options):
        descriptor = opened(path, flags, *mode, **options)
        if str(path).endswith(".journal"):
            monkeypatch.setattr(os, "open", opened)
            JournalFile.adopt(journal.path).remove()
            journal.path.touch()  # somebody else's new file by that name
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose_the_race)
    assert JournalFile.adopt(journal.path) is None


def test_reading_goes_on_where_it_was_left(journal):
    rows = [make_row(str(number)) for number in range(5)]
    journal.append(encode(*rows))
    ends = [line.end for line in journal.read()]
    later = [lines.to_row(line.record) for line in journal.read(ends[2])]
    assert later == rows[3:]


def test_files_of_other_databases_are_not_listed(tmp_path):
    mine = JournalFile.create(tmp_path, "mine", CAPACITY)
    JournalFile.create(tmp_path, "other", CAPACITY)
    assert list_files(tmp_path, "mine") == [mine.path]


def test_the_drafts_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    (tmp_path / ".draft-db.dead.journal").touch()
    alive = JournalFile.create(tmp_path, "db", CAPACITY)
    alive_draft = alive.path.rename(tmp_path / ".draft-db.alive.journal")
    remove_drafts(tmp_path)
    assert list(tmp_path.glob(".draft-*")) == [alive_draft]


def test_a_record_of_a_later_version_is_no_row():
    assert lines.to_row({"v": max(lines.VERSIONS) + 1, "row": {}}) is None
    assert lines.to_row({"staccato_journal": 1}) is None


# --- refused rows -----------------------------------------------------------------------------


def test_refused_rows_stay_until_they_are_removed(tmp_path):
    refused = DeadLetters(tmp_path / "journal", "db")
    assert refused.read() == []
    rows = [make_row(str(number)) for number in range(3)]
    for row in rows:
        refused.add(row, "PostgreSQL can't store the row (23514)")
    refused.add(rows[0], "PostgreSQL can't store the row (23514)")  # again, from a journal
    assert [entry.keyed for entry in refused.read()] == rows
    assert refused.read()[0].error == "PostgreSQL can't store the row (23514)"
    with refused.locked():
        refused.remove({rows[1].row.id})
    assert [entry.keyed.row.id for entry in refused.read()] == [rows[0].row.id, rows[2].row.id]
    assert stat.S_IMODE(refused.path.stat().st_mode) == 0o600
    assert isinstance(refused.read()[0].keyed.row.id, UUID)


def test_a_refused_row_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A disk that is nearly full takes a part first."""
    refused = DeadLetters(tmp_path, "db")
    refused.add(make_row("before"), "why")
    written = os.pwrite

    def write_a_part(descriptor, data, offset):
        monkeypatch.setattr(os, "pwrite", fail)
        return written(descriptor, data[:100], offset)

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    for name in ("write", "pwrite"):
        monkeypatch.setattr(os, name, write_a_part)
    with pytest.raises(OSError, match="No space"):
        refused.add(make_row("lost"), "why")
    monkeypatch.undo()
    refused.add(make_row("after"), "why")
    assert [entry.keyed.row.result for entry in refused.read()] == ["before", "after"]


def test_a_refused_row_that_a_crash_tore_takes_no_other_along(tmp_path):
    refused = DeadLetters(tmp_path, "db")
    refused.add(make_row("torn"), "why")
    os.truncate(refused.path, refused.path.stat().st_size - 30)
    refused.add(make_row("after"), "why")
    assert [entry.keyed.row.result for entry in refused.read()] == ["after"]


def test_refused_rows_are_read_to_be_counted_only_where_they_changed(tmp_path, monkeypatch):
    refused, other = DeadLetters(tmp_path, "db"), DeadLetters(tmp_path, "db")
    assert refused.count() == 0
    rows = [make_row(), make_row()]
    for row in rows:
        other.add(row, "why")
    assert refused.count() == 2
    with monkeypatch.context() as unchanged:
        unchanged.setattr(refused, "read", lambda: pytest.fail("it was read again"))
        assert refused.count() == 2
    with other.locked():
        other.remove({rows[0].row.id})
    assert refused.count() == 1


# --- dead letters ---------------------------------------------------------------------------------


def test_dead_letters_are_counted_without_reading_the_old_ones_again(tmp_path, monkeypatch):
    letters, decoded = DeadLetters(tmp_path, "db"), []
    decode = lines.decode
    monkeypatch.setattr(lines, "decode", lambda line: decoded.append(line) or decode(line))
    rows = [make_row() for _ in range(20)]
    for number, row in enumerate(rows, 1):
        letters.add(row, "a test says so")
        assert letters.count() == number
        assert letters.count() == number
    assert len(decoded) == len(rows)
    letters.add(rows[0], "again")
    assert letters.count() == 20
    with letters.locked():
        letters.remove({row.row.id for row in rows[:15]})
    assert letters.count() == 5


def test_dead_letters_that_another_process_removes_are_no_longer_counted(tmp_path):
    ours, theirs = DeadLetters(tmp_path, "db"), DeadLetters(tmp_path, "db")
    row = make_row()
    ours.add(row, "a test says so")
    assert ours.count() == 1
    with theirs.locked():
        theirs.remove({row.row.id})
    assert ours.count() == 0
    ours.path.unlink()
    assert ours.count() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files that others own")
def test_what_root_changes_stays_the_services(tmp_path):
    """As `sudo manage.py staccato_journal discard`."""
    service = 65_534
    os.chown(tmp_path, service, service)
    letters, row = DeadLetters(tmp_path, "db"), make_row()
    letters.add(row, "a test says so")
    with letters.locked():
        letters.remove({row.row.id})
    JournalFile.create(tmp_path, "db", CAPACITY).close()
    found = {path.name.partition(".")[2]: path.stat().st_uid for path in tmp_path.iterdir()}
    assert len(found) == 3
    assert set(found.values()) == {service}


def test_the_keys_of_all_journals_are_found_whoever_writes_them(tmp_path):
    odd = 'a text with "claim":{"user_id":9,"key":"no"}'
    living, dead = (JournalFile.create(tmp_path, "db", CAPACITY) for _ in range(2))
    living.append(encode(make_row(odd), make_row(odd, claim=make_claim("one"))))
    dead.append(encode(make_row(claim=make_claim("two")), make_row(claim=make_claim('"\\{'))))
    os.pwrite(dead._descriptor, encode(make_row(claim=make_claim("torn")))[0][:-9], dead.end)
    dead.close()
    other = JournalFile.create(tmp_path, "another", CAPACITY)
    other.append(encode(make_row(claim=make_claim("foreign"))))
    assert keys_in(tmp_path, "db") == {(1, "one"), (1, "two"), (1, '"\\{')}
