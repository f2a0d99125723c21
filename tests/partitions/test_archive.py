"""A partition becomes a file that is complete and verified; only then may it be dropped."""

from __future__ import annotations

import gzip
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from generation.management.commands import staccato_archive
from generation.partitions import ddl
from generation.partitions.archive import ArchiveSpoiled, archive, due
from generation.partitions.catalog import Found, partition_of
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY, interval_at
from generation.partitions.plan import plan
from tests.support.admin import make_id

PARENT = Parent("parted", DAY, "public")
KEPT = timedelta(days=11)
TEXT = 'a "quoted" back\\slash,\n\ta \\n and ü \\\\'


@pytest.fixture
def now(committed):
    """Partitions of 12, 3 and 0 days ago, with two rows each."""
    moment = datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE parted (id uuid PRIMARY KEY, words text, things jsonb, at timestamptz)"
            " PARTITION BY RANGE (id)"
        )
        for days in (12, 3, 0):
            then = moment - timedelta(days=days)
            for statement in ddl.make(PARENT, interval_at(then, DAY)):
                cursor.execute(statement)
            for _row in range(2):
                add(cursor, then)
    yield moment
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE parted")


def add(cursor, moment: datetime) -> None:
    things = json.dumps({"text": TEXT})
    cursor.execute(
        "INSERT INTO parted VALUES (%s, %s, %s, %s)", [make_id(moment), TEXT, things, moment]
    )


def find(now: datetime) -> Found:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, pg_get_expr(relpartbound, oid), false,"
            " obj_description(oid, 'pg_class') FROM pg_class"
            " WHERE relname LIKE 'parted\\_2%' AND relkind = 'r' ORDER BY relname"
        )
        return Found(PARENT, now, [partition_of(*row) for row in cursor.fetchall()])


def run(now: datetime, folder: Path) -> list[str]:
    words: list[str] = []
    found = find(now)
    for part in due(found, KEPT, None):
        archive(connection, found, part, folder, words.append)
    return words


def file_in(folder: Path) -> Path:
    (path,) = folder.glob("*.ndjson.gz")
    return path


def test_a_partition_that_is_dropped_soon_is_written_as_it_is(now, tmp_path):
    (words,) = run(now, tmp_path)
    assert "2 rows" in words
    with gzip.open(file_in(tmp_path), "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 2
    assert {row["words"] for row in rows} == {TEXT}
    assert rows[0]["things"] == {"text": TEXT}
    assert datetime.fromisoformat(rows[0]["at"]) == now - timedelta(days=12)
    subprocess.run(["sha256sum", "--check", "--strict", *tmp_path.glob("*.sha256")],
        cwd=tmp_path, check=True, capture_output=True)  # fmt: skip
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir()), "it holds prompts"
    assert len(list(tmp_path.iterdir())) == 2, "no draft is left"


def test_what_is_due_is_what_is_dropped_within_a_week_or_lies_before_a_day(now):
    found = find(now)
    assert len(due(found, KEPT, None)) == 1
    assert len(due(found, KEPT, now - timedelta(days=5))) == 1
    assert len(due(found, KEPT, now + timedelta(days=99))) == 2, "today's still gets rows"
    assert due(found, timedelta(days=300), None) == []


def test_a_finished_file_is_kept_and_a_draft_is_begun_again(now, tmp_path):
    run(now, tmp_path)
    before = file_in(tmp_path).stat()
    draft = file_in(tmp_path).with_name("parted_x.ndjson.gz.part")
    assert ["is archived" in words for words in run(now, tmp_path)] == [True]
    assert file_in(tmp_path).stat().st_ino == before.st_ino
    file_in(tmp_path).rename(draft.with_name(f"{file_in(tmp_path).name}.part"))
    assert "2 rows" in run(now, tmp_path)[0]


def test_rows_that_came_late_are_archived_as_well(now, tmp_path):
    run(now, tmp_path)
    with connection.cursor() as cursor:
        add(cursor, now - timedelta(days=12))
    assert "3 rows" in run(now, tmp_path)[0]


def test_a_file_that_can_not_be_read_back_does_not_count(now, tmp_path, monkeypatch):
    class Spoiled(gzip.GzipFile):
        def write(self, data):
            super().write(data.upper())
            return len(data)

    monkeypatch.setattr(gzip, "GzipFile", Spoiled)
    with pytest.raises(ArchiveSpoiled):
        run(now, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not any(part.is_archived for part in find(now).partitions)


def test_only_what_was_archived_is_dropped_where_that_comes_first(now, tmp_path):
    assert plan(find(now), KEPT, archive_first=True).detach == []
    assert len(plan(find(now), KEPT).detach) == 1
    run(now, tmp_path)
    assert len(plan(find(now), KEPT, archive_first=True).detach) == 1


def test_the_command_writes_what_lies_before_a_day(now, tmp_path, monkeypatch, capsys):
    async def find_ours(_settings):
        return [(found, KEPT)]

    found = find(now)
    monkeypatch.setattr(staccato_archive, "_find", find_ours)
    day = f"{now - timedelta(days=5):%Y-%m-%d}"
    call_command("staccato_archive", str(tmp_path), "--before", day)
    assert "2 rows" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.gz"))) == 1


def test_the_command_says_what_it_lacks(committed, tmp_path, capsys):
    with pytest.raises(CommandError, match="not a directory"):
        call_command("staccato_archive", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="not a date"):
        call_command("staccato_archive", str(tmp_path), "--before", "yesterday")
    call_command("staccato_archive", str(tmp_path), "--before", "2020-01-01")
    assert "nothing is due" in capsys.readouterr().out
