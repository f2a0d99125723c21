"""What the journal has outlives its process, its folder's cleaner and a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
from itertools import count
from pathlib import Path

import pytest

from generation.conf import parse
from generation.errors import DatabaseUnavailable, JournalUnavailable
from generation.journal import lines
from generation.journal.file import JournalFile
from generation.journal.spool import Spool
from tests.durability.support import (
    answered_without_a_database,
    ids_of,
    in_the_llm,
    looking,
    stored,
    until_stored,
)
from tests.support import http, service
from tests.support.dialects import AnthropicDialect
from tests.support.locks import locked, until_blocked
from tests.support.provider import says
from tests.support.rows import make_row
from tests.support.waiting import until


async def test_a_living_sibling_adopts_the_journal_of_a_killed_one(serve, llm, postgres):
    async with serve() as survivor, serve() as killed:
        ids = await answered_without_a_database(killed, llm, postgres, 20)
        killed.process.kill()
        await killed.ended()
        postgres.start()
        await until_stored(postgres, ids)
        assert (await http.generate(survivor.port)).status == 200


async def test_what_a_killed_process_journaled_is_stored_beside_a_journal_that_cant_be(
    serve, llm, postgres, journal_dir
):
    async with serve() as running:
        ids = await answered_without_a_database(running, llm, postgres, 20)
        running.process.kill()
        await running.ended()
    (good,) = journal_dir.glob("*.journal")
    later = JournalFile.create(journal_dir, good.name.split(".")[0], 65_536)
    later.append([lines.encode({"v": max(lines.VERSIONS) + 1, "row": {}})])
    later.close()
    os.utime(later.path, (1, 1))  # older, so that it comes first
    postgres.start()
    assert await stored(postgres) == set()
    async with serve() as running:
        await until_stored(postgres, ids)
        await running.until_logged("adopted")
        assert running.log.count(f"{later.path} is left alone") == 1
        assert later.path.exists()


def rows_in(journal_dir: Path) -> int:
    return sum(path.read_bytes().count(b'"row"') for path in journal_dir.glob("*.journal"))


async def test_a_journal_that_is_removed_under_its_process_is_replaced_with_its_rows(
    serve, llm, postgres, journal_dir
):
    async with serve() as running:
        ids = await answered_without_a_database(running, llm, postgres, 10)
        (removed,) = journal_dir.glob("*.journal")
        removed.unlink()
        await until(lambda: rows_in(journal_dir) == 10, "a new journal")
        assert f"{removed} was removed" in running.log
        running.process.kill()
        await running.ended()
    postgres.start()
    async with serve():
        await until_stored(postgres, ids)


async def test_an_answer_is_journaled_though_the_journal_has_just_been_removed(
    serve, llm, postgres, journal_dir
):
    async with serve() as running:
        callers = await in_the_llm(running, llm, 10)
        postgres.stop_at_once()
        for path in journal_dir.glob("*.journal"):
            path.unlink()
        llm.release.set()
        ids = ids_of(await asyncio.gather(*callers))
        running.process.kill()
        await running.ended()
    postgres.start()
    async with serve():
        await until_stored(postgres, ids)


async def test_a_journal_that_is_removed_keeps_its_rows_through_a_shutdown(
    serve, llm, postgres, journal_dir
):
    async with serve() as running:
        ids = await answered_without_a_database(running, llm, postgres, 3)
        for path in journal_dir.glob("*.journal"):
            path.unlink()
        running.terminate()
        await running.ended()
    postgres.start()
    async with serve():
        await until_stored(postgres, ids)


async def test_a_journal_that_fails_is_replaced_though_the_database_is_away(runtime, monkeypatch):
    async def away():
        raise DatabaseUnavailable("a test says so")

    def fail(_descriptor):
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(runtime.store, "identify", away)
    monkeypatch.setattr(runtime.store, "ping", away)
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", fail)
    row = make_row()
    await runtime.log._keep(row)
    await until(lambda: not runtime.log.snapshot().rows_in_memory_only, "a new journal")
    assert runtime.log.snapshot().rows == 1
    runtime.log.admit()


async def test_a_row_is_in_memory_until_the_new_journal_has_it(monkeypatch, tmp_path):
    rows, append, seen = Spool(parse({"JOURNAL_DIR": str(tmp_path)})), JournalFile.append, []

    def look(file, encoded):
        seen.append(rows.snapshot(rows_refused=0).rows_in_memory_only)
        append(file, encoded)

    rows.remember([make_row()], "a test says so")
    monkeypatch.setattr(JournalFile, "append", look)
    await rows.open("db")
    assert seen == [1, 1], "meanwhile it was nowhere"  # at the header and at the row
    now = rows.snapshot(rows_refused=0)
    assert (now.rows, now.rows_in_memory_only) == (1, 0)
    await rows.close()


async def test_callers_read_the_systems_reason_and_no_path(monkeypatch, tmp_path):
    """A journal that is full can't go on in a further file."""
    rows = Spool(parse({"JOURNAL_DIR": str(tmp_path), "JOURNAL_MAX_BYTES": 65_536}))
    await rows.open("db")

    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    monkeypatch.setattr(JournalFile, "create", refuse)
    await rows.keep([make_row("x" * 70_000)])
    with pytest.raises(JournalUnavailable) as refused:
        rows.admit()
    assert refused.value.detail == (
        "1 answers are in memory only: the journal can't be written (Permission denied)"
    )
    await rows.close()


async def test_a_journal_of_another_database_is_left_alone_unless_a_command_stores_it(
    serve, llm, postgres, journal_dir
):
    async with serve() as running:
        ids = await answered_without_a_database(running, llm, postgres, 5)
        running.process.kill()
        await running.ended()
    postgres.start()
    async with looking(postgres) as sql:  # as good as another name
        await sql.execute("DELETE FROM generation_deployment")
    (old,) = journal_dir.glob("*.journal")
    async with serve() as running:
        await running.until_logged(f"{old} has 5 rows for the database")
        await running.until_logged("they are not stored")
        new = (await http.generate(running.port)).json()["id"]
        await until_stored(postgres, {new})
        assert await stored(postgres) == {new}
        assert old.exists()
        assert "5 stored" in service.manage(postgres.url, "staccato_journal", "adopt", str(old))
        assert await stored(postgres) == {new, *ids}
        assert not old.exists()
        (living,) = journal_dir.glob("*.journal")
        with pytest.raises(AssertionError, match="its process lives"):
            service.manage(postgres.url, "staccato_journal", "adopt", str(living))


# --- no room -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(journal_dir):
    """A disk of 256 KiB."""
    options = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(journal_dir)]
    if os.geteuid() or subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield journal_dir
    subprocess.run(["umount", str(journal_dir)], check=True)


async def test_a_disk_that_fills_later_does_not_matter(serve, llm, postgres, small_disk):
    async with serve(STACCATO_JOURNAL_MAX_BYTES="131072") as running:
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        ids = await answered_without_a_database(running, llm, postgres, 20)
        assert (await running.pool())["journal"]["rows"] == 20
        postgres.start()
        await until_stored(postgres, ids)


async def test_journals_of_the_dead_that_fill_the_disk_are_stored_and_make_room(
    serve, llm, postgres, small_disk
):
    size = {"STACCATO_JOURNAL_MAX_BYTES": "196608"}  # the disk holds one
    async with serve(**size) as running:
        ids = await answered_without_a_database(running, llm, postgres, 5)
        running.process.kill()
        await running.ended()
    postgres.start()
    async with serve(**size) as running:
        await until_stored(postgres, ids)
        await running.until_pool(lambda now: now["journal"]["capacity_bytes"], "a journal")
        assert (await http.generate(running.port)).status == 200


async def test_without_room_for_a_journal_no_money_is_spent(serve, llm, small_disk):
    async with serve(STACCATO_JOURNAL_MAX_BYTES="1048576") as running:
        refused = await http.generate(running.port)
        assert refused.status == 503
        assert refused.json()["type"].endswith("journal-unavailable")
        assert str(small_disk) not in refused.body.decode(), "paths are none of a caller's business"
        assert f"the journal in {small_disk} can't be made" in running.log
        assert llm.calls == 0
        ready = await http.request(running.port, "GET", "/readyz")
        assert (ready.status, ready.json()["database"]) == (503, "ok")
        assert "its log says why" in ready.json()["journal"]


async def test_the_reason_for_no_journal_is_logged_once_and_again_after_a_fix(
    monkeypatch, tmp_path, caplog
):
    drafts = count()

    def fail(folder, *_arguments):
        raise OSError(30, "Read-only file system", str(folder / f"draft-{next(drafts)}"))

    def complaints():
        return [text for text in caplog.messages if "can't be made: Read-only" in text]

    rows = Spool(parse({"JOURNAL_DIR": str(tmp_path)}))
    for number in (1, 2):
        with monkeypatch.context() as read_only:
            read_only.setattr(JournalFile, "create", fail)
            for _ in range(5):
                await rows.open("db")
        assert len(complaints()) == number
        await rows.open("db")
    await rows.close()


LONG = 30_000  # characters of an answer: two fit into the smallest journal


async def test_answers_beyond_a_journals_size_go_on_in_further_files(serve, llm, postgres):
    llm.behave = says(200, AnthropicDialect().answer("x" * LONG))
    async with serve(STACCATO_JOURNAL_MAX_BYTES="65536") as running:
        ids = await answered_without_a_database(running, llm, postgres, 40)
        journal = (await running.pool())["journal"]
        assert (journal["rows"], journal["rows_in_memory_only"]) == (40, 0)
        assert journal["capacity_bytes"] > 40 * LONG
        refused = await http.generate(running.port)
        assert refused.json()["type"].endswith("journal-unavailable")
        running.process.kill()
        await running.ended()
    postgres.start()
    async with serve(STACCATO_JOURNAL_MAX_BYTES="65536") as running:
        await until_stored(postgres, ids)


async def test_further_files_are_removed_once_their_rows_are_stored(
    serve, llm, postgres, journal_dir
):
    llm.behave = says(200, AnthropicDialect().answer("x" * LONG))
    async with serve(STACCATO_JOURNAL_MAX_BYTES="65536") as running:
        ids = await answered_without_a_database(running, llm, postgres, 20)
        postgres.start()
        await until_stored(postgres, ids)
        await running.until_pool(lambda now: now["journal"]["rows"] == 0, "no rows")
        await running.until_pool(
            lambda now: now["journal"]["capacity_bytes"] == 65_536, "one file of the usual size"
        )
        assert len(list(journal_dir.glob("*.journal"))) == 1
        assert (await http.generate(running.port)).status == 200


async def test_a_full_disk_still_answers_and_says_what_a_kill_would_lose(
    serve, llm, postgres, small_disk
):
    llm.behave = says(200, AnthropicDialect().answer("x" * LONG))
    async with serve(STACCATO_JOURNAL_MAX_BYTES="65536") as running:
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        ids = await answered_without_a_database(running, llm, postgres, 10)
        journal = (await running.pool())["journal"]
        assert journal["rows_in_memory_only"] > 0
        assert journal["rows"] + journal["rows_in_memory_only"] == 10
        assert "would now lose" in running.log
        metrics = (await http.request(running.port, "GET", "/metrics")).body.decode()
        in_memory = f'staccato_journal_rows{{where="memory"}} {journal["rows_in_memory_only"]}'
        assert in_memory in metrics
        ready = await http.request(running.port, "GET", "/readyz")
        assert ready.status == 503
        assert "can't be written (No space left on device)" in ready.json()["journal"]
        refused = await http.generate(running.port)
        assert refused.json()["type"].endswith("journal-unavailable")

        # Once the disk has room, it takes them, though the database is still away.
        os.truncate(filler, 0)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        await running.until_pool(
            lambda now: now["journal"]["rows_in_memory_only"] == 0, "nothing in memory only"
        )
        running.process.kill()
        await running.ended()
    postgres.start()
    async with serve(STACCATO_JOURNAL_MAX_BYTES="65536"):
        await until_stored(postgres, ids)


async def test_a_row_larger_than_a_journal_gets_a_file_of_its_own(runtime):
    capacity = runtime.log.snapshot().capacity_bytes
    big = make_row("x" * 2 * capacity)
    await runtime.log._append([make_row("fits"), big, make_row("y" * 30_000)])
    now = runtime.log.snapshot()
    assert (now.rows, now.rows_in_memory_only) == (3, 0)
    assert now.capacity_bytes > 3 * capacity


async def test_a_journal_of_a_renamed_database_is_named_once(runtime, caplog):
    folder = runtime.log._spool.folder
    old = JournalFile.create(folder, "an-identity-old_name", 65_536)
    old.append([lines.encode(lines.from_row(make_row()))])
    await runtime.log._adopt()
    assert "old_name" not in caplog.text, "its process lives"
    old.close()
    for _ in range(3):
        await runtime.log._adopt()
    named = [text for text in caplog.messages if "an-identity-old_name" in text]
    assert len(named) == 1
    assert f"{old.path} has 1 rows for the database an-identity-old_name" in named[0]


async def test_a_shutdown_saves_what_only_memory_had_where_the_disk_takes_it(serve, llm, postgres):
    llm.behave = says(200, AnthropicDialect().answer("x" * LONG))
    async with serve(STACCATO_JOURNAL_MAX_BYTES="65536") as running:
        ids = await answered_without_a_database(running, llm, postgres, 10)
        running.terminate()
        await running.ended()
        assert "are lost" not in running.log
    postgres.start()
    async with serve():
        await until_stored(postgres, ids)


async def test_rows_that_only_memory_has_are_not_forgotten_for_others_that_come_meanwhile(
    runtime, sql, database_url
):
    rows = [make_row("first"), make_row("second")]
    async with locked(database_url, "generation_generationlog"):
        runtime.log._spool.remember(rows[:1], "a test says so")
        await until_blocked(sql, "WITH rows AS")
        runtime.log._spool.remember(rows[1:], "a test says so")
    query = "SELECT result FROM generation_generationbody ORDER BY result"
    # A slow insert leaves the memory for the journal first.
    await until(lambda: sql.fetchval(f"SELECT ARRAY({query}) = '{{first,second}}'"), "both rows")
    await until(lambda: not runtime.log.snapshot().rows_in_memory_only, "no rows in memory only")
