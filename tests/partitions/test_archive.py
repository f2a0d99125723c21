"""A partition becomes a file that is complete and verified; only then may it be dropped."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from pyarrow import parquet

from generation import access
from generation.management.commands import staccato_archive
from generation.models import GenerationAccess
from generation.partitions import archive_formats, ddl
from generation.partitions.archive import Archive, due
from generation.partitions.archive_formats import ArchiveSpoiled, Ndjson, Parquet
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


@pytest.fixture(params=[Ndjson, Parquet])
def file_format(request):
    return request.param()


def run(now: datetime, folder: Path, file_format=None, announced: list | None = None) -> list[str]:
    words: list[str] = []
    found = find(now)
    archive = Archive(
        connection,
        folder,
        file_format or Ndjson(),
        announce=lambda *what: announced.append(what) if announced is not None else None,
        report=words.append,
    )
    for part in due(found, KEPT, None):
        archive.add(found, part)
    return words


def file_in(folder: Path) -> Path:
    (path,) = (*folder.glob("*.ndjson.gz"), *folder.glob("*.parquet"))
    return path


def read(path: Path) -> list[dict]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt") as lines:
            rows = [json.loads(line) for line in lines]
        return [{**row, "at": datetime.fromisoformat(row["at"])} for row in rows]
    rows = parquet.read_table(path).to_pylist()
    return [{**row, "things": json.loads(row["things"])} for row in rows]


def test_a_partition_that_is_dropped_soon_is_written_as_it_is(now, tmp_path, file_format):
    (words,) = run(now, tmp_path, file_format)
    assert "2 rows" in words
    rows = read(file_in(tmp_path))
    assert len(rows) == 2
    for row in rows:
        assert UUID(row.pop("id"))
        assert row == {"words": TEXT, "things": {"text": TEXT}, "at": now - timedelta(days=12)}
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


def test_a_finished_file_is_kept_and_a_draft_is_begun_again(now, tmp_path, file_format):
    announced: list = []
    run(now, tmp_path, file_format, announced)
    path = file_in(tmp_path)
    inode = path.stat().st_ino
    assert [words.endswith("is archived") for words in run(now, tmp_path, file_format)] == [True]
    assert path.stat().st_ino == inode
    path.rename(path.with_name(f"{path.name}.part"))
    assert "2 rows" in run(now, tmp_path, file_format, announced)[0]
    assert announced == [(2, path)] * 2, "only what is written"


def test_what_has_its_own_types_comes_back_from_parquet_in_groups(committed, tmp_path, monkeypatch):
    """In a session whose times are not UTC, and with each kind of column that the log has."""
    monkeypatch.setattr(archive_formats, "GROUP_ROWS", 2)
    sql = """
    SELECT n::int8 AS "a ""n"" b", n::int4 AS i, n::int2 AS s, n > 1 AS b, n / 3.0 AS unbounded,
        (n / 7.0)::numeric(18, 9) AS c, timestamptz '2026-01-31T23:59:59.999999Z' AS at,
        '10.0.0.1'::inet AS address, NULLIF(n, 2)::text AS t, NULL::timestamptz AS never
    FROM generate_series(1, 5) AS n
    """
    path = tmp_path / "typed.parquet"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'Asia/Seoul'")
        cursor.execute(f"CREATE TEMPORARY TABLE typed ON COMMIT DROP AS {sql}")
        with path.open("wb") as file:
            written = Parquet().write(cursor, "typed", file, lambda _rows: None)
    assert Parquet().read(path) == written
    assert written.rows == 5
    table = parquet.read_table(path)
    assert [str(field.type) for field in table.schema] == [
        *("int64", "int32", "int16", "bool", "string", "decimal128(18, 9)"),
        *("timestamp[us, tz=UTC]", "string", "string", "timestamp[us, tz=UTC]"),
    ]
    row = table.to_pylist()[1]
    assert row['a "n" b'] == 2
    assert row["c"] == Decimal("0.285714286")
    assert row["at"] == datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert (row["address"], row["t"], row["never"]) == ("10.0.0.1/32", None, None)
    assert parquet.ParquetFile(path).num_row_groups == 3


def test_rows_that_came_late_are_archived_as_well(now, tmp_path):
    run(now, tmp_path)
    with connection.cursor() as cursor:
        add(cursor, now - timedelta(days=12))
    assert "3 rows" in run(now, tmp_path)[0]


@pytest.mark.parametrize("spoiled", [b"", b"PAR1", b"x" * 2000], ids=["empty", "torn", "other"])
def test_a_file_that_can_not_be_read_back_does_not_count(
    now, tmp_path, file_format, spoiled, monkeypatch
):
    write = type(file_format).write

    def spoil(self, cursor, table, file, count):
        written = write(self, cursor, table, file, count)
        file.seek(0)
        file.truncate()
        file.write(spoiled)
        return written

    monkeypatch.setattr(type(file_format), "write", spoil)
    with pytest.raises(ArchiveSpoiled):
        run(now, tmp_path, file_format)
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
    call_command("staccato_archive", str(tmp_path), "--before", day, "--format", "parquet")
    assert "2 rows" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.parquet")
    entry = GenerationAccess.objects.get()
    assert (entry.action, entry.user_id, entry.rows) == ("export", None, 2)
    assert entry.selection.startswith(f"{path}, by staccato_archive of ")


def test_what_can_not_be_recorded_is_not_written(now, tmp_path, monkeypatch):
    async def find_ours(_settings):
        return [(found, KEPT)]

    def refuse(*_args, **_entry):
        raise access.NotRecorded("no partition")

    found = find(now)
    monkeypatch.setattr(staccato_archive, "_find", find_ours)
    monkeypatch.setattr(access, "record", refuse)
    with pytest.raises(CommandError, match="no entry: no partition"):
        call_command("staccato_archive", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_without_its_package_parquet_says_what_to_install(committed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # an import of it fails
    with pytest.raises(CommandError, match=r"pip install 'django-staccato\[archive\]'"):
        call_command("staccato_archive", str(tmp_path), "--format", "parquet")


def test_the_command_says_what_it_lacks(committed, tmp_path, capsys):
    with pytest.raises(CommandError, match="not a directory"):
        call_command("staccato_archive", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="not a date"):
        call_command("staccato_archive", str(tmp_path), "--before", "yesterday")
    call_command("staccato_archive", str(tmp_path), "--before", "2020-01-01")
    assert "nothing is due" in capsys.readouterr().out
