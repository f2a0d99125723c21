"""The export of a list, to a browser and by `manage.py staccato_export`."""

from __future__ import annotations

import csv
import io
import itertools
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.test import AsyncClient
from pyarrow import parquet

from generation import access
from generation.admin import pagination
from generation.admin.export import download, rows, selection
from generation.admin.pagination import TooLong
from generation.models import GenerationAccess, GenerationLog
from generation.partitions.intervals import WEEK
from generation.privacy.encryption import TEXTS
from tests.support.admin import LOGS, save_log, save_logs

EXPORT = f"{LOGS}export/"
ALL = "view_generationlog export read_content"

pytestmark = pytest.mark.usefixtures("orm", "_no_export_under_way")


@pytest.fixture
def _no_export_under_way(monkeypatch) -> None:
    monkeypatch.setattr(download, "_place", download.Place())
    monkeypatch.setattr(download, "LONGEST_REST_S", 0.0)


@pytest.fixture
def small_portions(monkeypatch) -> None:
    monkeypatch.setattr(selection, "PORTION", 3)
    monkeypatch.setattr(rows, "BATCH_ROWS", 2)


async def log_in(codenames: str = "view_generationlog export") -> AsyncClient:
    def make():
        user = get_user_model().objects.create(username="clerk", is_staff=True)
        user.user_permissions.add(*Permission.objects.filter(codename__in=codenames.split()))
        return user

    client = AsyncClient()
    await client.aforce_login(await sync_to_async(make)())
    return client


async def content_of(response) -> bytes:
    return b"".join([part async for part in response.streaming_content])


async def visit(codenames: str, query: str = ""):
    client = await log_in(codenames)
    response: Any = await client.get(EXPORT + query)
    if response.streaming:
        response.body = await content_of(response)
    return response


def lines(content: bytes) -> list[dict]:
    return [orjson.loads(line) for line in content.splitlines()]


def accesses() -> list:
    entries = GenerationAccess.objects.order_by("pk")
    return list(entries.values_list("action", "rows", "selection"))


def ids(logs) -> list[str]:
    """Oldest first, of the newest first."""
    return [str(log.pk) for log in reversed(logs)]


# --- by the browser -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codenames", ["view_generationlog", "view_generationlog read_content", "export", ""]
)
async def test_only_who_may_view_and_export_exports(codenames):
    await sync_to_async(save_log)()
    client = await log_in(codenames)
    for url in (EXPORT, f"{EXPORT}choose/"):
        assert (await client.get(url)).status_code == 403
    assert await sync_to_async(accesses)() == []


async def test_without_the_right_to_read_it_has_no_text(small_portions):
    logs = await sync_to_async(save_logs)(5, status="failed", metadata={"ticket": "4711"})
    await sync_to_async(save_log)(9)
    response = await visit("view_generationlog export", "?status=failed")
    assert response["Content-Type"] == "application/x-ndjson"
    found = lines(response.body)
    assert [row["id"] for row in found] == ids(logs)
    assert found[0]["metadata"] == {"ticket": "4711"}
    assert {*found[0]} == {field.attname for field in GenerationLog._meta.concrete_fields}
    portions = [("export", 3, "status=failed"), ("export", 2, "status=failed")]
    assert await sync_to_async(accesses)() == portions, "each is recorded before it is read"


async def test_with_the_right_to_read_it_has_the_texts_that_are_still_kept(monkeypatch):
    monkeypatch.setattr(rows, "BATCH_BYTES", 10)
    newest, old = await sync_to_async(save_logs)(2, prompt="a prompt", result="über")
    await sync_to_async(old.body.delete)()
    first, second = lines((await visit(ALL)).body)
    assert (second["id"], second["prompt"], second["result"]) == (
        *(str(newest.pk), "a prompt", "über"),
    )
    assert (first["id"], first["prompt"]) == (str(old.pk), None)
    assert {*TEXTS} - {*first} == {"excerpt"}, "all columns"


async def test_each_format_has_the_same_values(subtests):
    texts: dict[str, Any] = {
        "prompt": '=HYPERLINK("x")',
        "result": 'a\n"b", ü',
        "error": " @SUM(1)",
    }
    cost = Decimal("0.000132000")
    log = await sync_to_async(save_log)(cost_usd=cost, attempts=[{"ms": 1}], **texts)
    client = await log_in(ALL)
    read: dict[str, dict] = {}
    for kind in ("csv", "jsonl", "parquet"):
        content = await content_of(await client.get(f"{EXPORT}?format={kind}"))
        match kind:
            case "csv":
                (read[kind],) = csv.DictReader(io.StringIO(content.decode()))
            case "jsonl":
                (read[kind],) = lines(content)
            case _:
                (read[kind],) = parquet.read_table(io.BytesIO(content)).to_pylist()
    sheet, line, table = read.values()
    assert [*sheet] == [*line] == [*table]
    with subtests.test("CSV: what a spreadsheet would run, it shows"):
        assert (sheet["prompt"], sheet["error"]) == ("'" + texts["prompt"], "'" + texts["error"])
        assert (sheet["result"], sheet["attempts"]) == (texts["result"], '[{"ms":1}]')
        assert (sheet["cost_usd"], sheet["is_streamed"]) == ("0.000132000", "false")
    with subtests.test("JSON lines"):
        assert (line["prompt"], line["cost_usd"]) == (texts["prompt"], "0.000132000")
        assert line["attempts"] == [{"ms": 1}]
    with subtests.test("Parquet"):
        assert (table["prompt"], table["cost_usd"]) == (texts["prompt"], cost)
        assert (table["created_at"], table["total_tokens"]) == (log.created_at, 30)
        assert table["attempts"] == '[{"ms":1}]'


async def test_it_goes_on_after_an_id(small_portions):
    logs = await sync_to_async(save_logs)(5)
    client = await log_in()
    broken: Any = await client.get(EXPORT)
    begun = b""
    while begun.count(b"\n") < 2:
        begun += await anext(broken.streaming_content)
    broken.close()
    last = lines(begun)[-1]["id"]
    rest = lines(await content_of(await client.get(f"{EXPORT}?after={last}")))
    assert [row["id"] for row in lines(begun) + rest] == ids(logs)


async def test_what_breaks_off_does_not_end_as_if_it_were_whole(small_portions, monkeypatch):
    await sync_to_async(save_logs)(5)
    client = await log_in()
    response: Any = await client.get(EXPORT)
    parts = response.streaming_content
    assert lines(await anext(parts))

    def fail(*_args, **_kwargs) -> None:
        raise access.NotRecorded("away")

    monkeypatch.setattr(access, "record", fail)
    with pytest.raises(download.BrokenOff, match="after="):
        [part async for part in parts]
    monkeypatch.undo()
    assert (await client.get(EXPORT)).status_code == 200, "and its place is free"


async def test_one_export_at_a_time_and_its_end_makes_room(monkeypatch):
    """Whether it was sent to its end, refused, or never begun because its client left."""
    await sync_to_async(save_log)()
    clerk = await log_in()
    running: Any = await clerk.get(EXPORT)
    refused = await clerk.get(EXPORT)
    assert (refused.status_code, refused["Retry-After"]) == (503, "10")
    assert b"Another export" in refused.content
    assert len(await sync_to_async(accesses)()) == 1, "what is refused is no export"
    running.close()
    for query in ("?body__prompt=x", "?after=x", "?format=x", "?created_at_from_0=x"):
        assert (await clerk.get(EXPORT + query)).status_code == 400, query
    assert (await clerk.get(EXPORT)).status_code == 200
    assert (await clerk.get(EXPORT)).status_code == 503
    monkeypatch.setattr(download, "IDLE_S", 0.0)
    assert (await clerk.get(EXPORT)).status_code == 200, "nobody closed the last one"


async def test_the_page_says_what_is_exported_and_how(subtests):
    client = await log_in()
    html = (await client.get(f"{EXPORT}choose/?status=failed")).content.decode()
    assert 'name="status" value="failed"' in html
    assert "<dd>status: failed</dd>" in html
    assert "which your account may not read" in html
    assert (
        "not one of the list"
        in (await client.get(f"{EXPORT}choose/?body__prompt=x")).content.decode()
    )


# --- by the command -------------------------------------------------------------------------------


def interrupt(monkeypatch, *, after: int) -> None:
    """As Ctrl-C does, once so many batches are read."""
    read, count = rows.Rows.read, itertools.count(1)

    def interrupted(self, keys):
        if next(count) > after:
            raise KeyboardInterrupt
        return read(self, keys)

    monkeypatch.setattr(rows.Rows, "read", interrupted)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_aborted_export_goes_on_in_its_file(small_portions, monkeypatch, tmp_path, kind):
    logs = save_logs(8, status="failed")
    save_log(99)
    file, whole = tmp_path / f"some.{kind}", tmp_path / f"whole.{kind}"
    asked: dict[str, Any] = {"status": "failed", "with_texts": True}
    call_command("staccato_export", str(whole), **asked)
    with monkeypatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(CommandError, match=f"--resume {file}"):
            call_command("staccato_export", str(file), **asked)
    assert not file.exists(), "it has its name once it is complete"
    with pytest.raises(CommandError, match="--resume"):
        call_command("staccato_export", str(file), **asked)
    call_command("staccato_export", resume=file)
    if kind == "parquet":
        table = parquet.read_table(file)
        assert table.column("id").to_pylist() == ids(logs)
        assert table == parquet.read_table(whole)
    else:
        assert file.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, whole.name]
    assert file.stat().st_mode & 0o777 == 0o600
    file.with_name(f"{file.name}.resume").write_text("{}")  # as after a crash at the very end
    with pytest.raises(CommandError, match="is complete"):
        call_command("staccato_export", resume=file)


def test_the_command_takes_the_lists_filters_and_prints(small_portions, capfdbinary, subtests):
    logs = save_logs(3, model="claude-sonnet-5-5") + save_logs(1, model="gpt-6-luna")
    for options, expected in (
        ({}, len(logs)),
        ({"model": "gpt-6-luna"}, 1),
        ({"query": "?model=gpt-6-luna&status=succeeded"}, 1),
        ({"q": str(logs[0].pk)}, 1),
        ({"after": logs[1].pk, "model": "claude-sonnet-5-5"}, 1),
        ({"since": ("2026-02-01", "")}, 0),
        ({"to": ("2026-01-31", "12:00")}, 2),
    ):
        with subtests.test(str(options)):
            call_command("staccato_export", "-", **options)
            assert len(lines(capfdbinary.readouterr().out)) == expected
    for options in ({"query": "body__prompt=x"}, {"query": "created_at_from_0=x"}):
        with subtests.test(str(options)), pytest.raises(CommandError):
            call_command("staccato_export", "-", **options)
    exports = GenerationAccess.objects.filter(action="export", user=None)
    assert all("the output, by " in entry.selection for entry in exports)


def test_where_the_record_cannot_be_written_nothing_is_exported(tmp_path, monkeypatch):
    save_log()

    def fail(*_args, **_kwargs) -> None:
        raise access.NotRecorded("away")

    monkeypatch.setattr(access, "record", fail)
    with pytest.raises(CommandError, match="Go on with"):
        call_command("staccato_export", str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv.part").read_bytes().count(b"\n") == 1, "the names of the columns"


# --- the way through the log ----------------------------------------------------------------------


def test_a_window_that_takes_too_long_becomes_narrower(monkeypatch):
    """Down to seconds; what no window can find is an error, not an empty end."""
    logs = save_logs(5)
    until = UUID(int=logs[0].pk.int + 1)
    widths = []
    fetch = pagination.fetch

    def patient(queryset):
        if "generation_generationlog" in str(queryset.query) and walk._width > limit:
            widths.append(walk._width)
            raise TooLong("too long")
        return fetch(queryset)

    monkeypatch.setattr(selection, "fetch", patient)
    limit = WEEK
    walk = selection.Walk(GenerationLog.objects.all(), until=until)
    monkeypatch.setattr(walk, "_before_the_oldest", lambda: UUID(int=logs[-1].pk.int - 1))
    limit = WEEK / 100
    monkeypatch.setattr(selection, "QUICK_S", 0.0)  # it does not widen again
    found = []
    while (portion := walk.portion()) is not None:
        found += portion
    assert found == [log.pk for log in reversed(logs)]
    assert len(widths) == 3
    limit = selection.NARROWEST / 1000
    walk = selection.Walk(GenerationLog.objects.all(), until=until)
    monkeypatch.setattr(walk, "_before_the_oldest", lambda: UUID(int=logs[-1].pk.int - 1))
    with pytest.raises(TooLong):
        walk.portion()
