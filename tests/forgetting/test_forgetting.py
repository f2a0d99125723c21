"""`manage.py staccato_forget`: what a user wrote is gone, also what was still on its way."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, connections

from generation import forgetting
from generation.journal import lines
from generation.journal.erasing import HostFiles
from generation.journal.file import JournalFile
from generation.models import (
    ApiKey,
    Deployment,
    ForgottenUser,
    GenerationAccess,
    GenerationBody,
    GenerationLog,
    IdempotencyKey,
    UsageLog,
)
from tests.support.admin import NOON, save_log
from tests.support.rows import make_claim, make_row
from tests.support.threads import in_thread
from tests.support.waiting import until

CANARY = "canary-90bd"
WORDS = {"request_id": CANARY, "trace_id": CANARY[:32], "metadata": {"name": CANARY}}


def forget(*arguments: str) -> str:
    out = io.StringIO()
    try:
        call_command("staccato_forget", *arguments, stdout=out)
    finally:
        connections.close_all()
    return out.getvalue()


def own(user_id: int) -> None:
    """A generation with its words, a usage record and keys."""
    save_log(user_id, user_id=user_id, prompt=CANARY, result=CANARY, **WORDS)
    UsageLog.objects.create(user_id=user_id, tokens=30, latency_ms=1, created_at=NOON)
    name = f"key{user_id}"
    ApiKey.objects.create(user_id=user_id, scope="user", name=name, prefix=name, digest=name)
    now = datetime.now(UTC)
    IdempotencyKey.objects.create(
        user_id=user_id, key=CANARY, claim=make_row().row.id, created_at=now,
        leased_until=now + timedelta(minutes=1),
    )  # fmt: skip


def zeros(said: str) -> bool:
    counted_again = said.partition("Counted again:")[2].split("\n\n")[0]
    return {line.split()[0] for line in counted_again.strip().splitlines()} == {"0"}


def test_only_figures_stay_and_only_of_this_user_are_words_erased(users, monkeypatch):
    monkeypatch.setattr(forgetting, "BATCH_ROWS", 2)
    own(1)
    own(2)
    usage = set(UsageLog.objects.values_list("pk", flat=True))
    for minutes in range(4):
        save_log(minutes, user_id=1, prompt=CANARY)
    said = forget("user1", "--yes")
    assert "5  prompts and answers" in said
    assert zeros(said)
    assert "What remains" in said
    assert set(GenerationBody.objects.values_list("log__user_id", flat=True)) == {2}
    left = GenerationLog.objects.filter(user_id=1)
    assert {log.total_tokens for log in left} == {30}
    assert len(left) == 5
    assert not {(log.request_id, log.trace_id, *log.metadata) for log in left} - {("", "")}
    for model in (ApiKey, IdempotencyKey):
        assert list(model.objects.values_list("user_id", flat=True)) == [2]
    assert len(usage) >= 2
    assert usage <= set(UsageLog.objects.values_list("pk", flat=True))
    entry = GenerationAccess.objects.get()
    assert (entry.action, entry.rows, entry.user_id) == ("erase", 5, None)
    assert entry.selection.startswith("all of user 1,")


def test_what_an_operator_has_sent_again_goes_with_the_users_own(users):
    first = save_log(user_id=1, prompt=CANARY)
    save_log(1, user_id=2, prompt=CANARY, replay_of=first.pk, request_id="r")
    kept = save_log(2, user_id=2, prompt="theirs")
    assert "2  prompts and answers" in forget("user1", "--yes")
    assert list(GenerationBody.objects.values_list("pk", flat=True)) == [kept.pk]
    assert GenerationLog.objects.filter(replay_of=first.pk, request_id="r").exists()


def test_a_second_run_finds_nothing_and_an_account_may_be_gone(users):
    own(1)
    get_user_model().objects.filter(pk=1).delete()
    assert zeros(forget("1", "--yes"))
    said = forget("1", "--yes")
    assert "0  prompts and answers" in said.partition("Erased")[0]
    assert ForgottenUser.objects.count() == 1


def test_nobody_is_forgotten_by_mistake(users, monkeypatch):
    own(1)
    for answer in ("", "y", "2"):
        monkeypatch.setattr("builtins.input", lambda _prompt, answer=answer: answer)
        with pytest.raises(CommandError, match="Nothing was erased"):
            forget("user1")
    with pytest.raises(CommandError, match="no user nobody"):
        forget("nobody", "--yes")
    assert GenerationBody.objects.count() == 1
    assert not ForgottenUser.objects.exists()


def test_what_cannot_be_recorded_is_not_erased(users):
    own(1)
    table = GenerationAccess._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT none CHECK (rows < 0) NOT VALID")
    try:
        with pytest.raises(CommandError, match="Nothing was erased"):
            forget("1", "--yes")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT none")
    assert GenerationBody.objects.count() == 1
    assert not ForgottenUser.objects.exists()


def test_what_a_living_process_has_not_stored_is_not_called_gone(
    users, settings, monkeypatch, tmp_path
):
    monkeypatch.setattr(forgetting, "WAIT_S", 0.2)
    settings.STACCATO = {**settings.STACCATO, "JOURNAL_DIR": str(tmp_path)}
    identity = Deployment.objects.get_or_create(id=1, defaults={"identity": uuid4()})[0].identity
    database = f"{identity}-{connection.settings_dict['NAME']}"
    living = JournalFile.create(tmp_path, database, 65_536)
    waiting = (make_row(CANARY), make_row(CANARY, user_id=2, author_id=1))
    living.append([lines.encode(lines.from_row(row)) for row in waiting])
    assert HostFiles(tmp_path, database).count(1).waiting == 2, "an operator's of their texts, too"
    with pytest.raises(CommandError, match="Not all is erased"):
        forget("1", "--yes")
    living.close()  # it dies, and so the command may rewrite its file
    assert zeros(forget("1", "--yes"))


@pytest.mark.parametrize("claim", [None, make_claim(CANARY)], ids=["unkeyed", "keyed"])
async def test_a_row_that_comes_later_arrives_without_words(runtime, sql, claim):
    await sync_to_async(forget)("1", "--yes")
    late = [
        make_row(CANARY, user_id=user_id, prompt=CANARY, claim=claim, **WORDS) for user_id in (1, 2)
    ]
    # An operator's, to whom another model has answered the user's prompt.
    late.append(make_row(CANARY, user_id=3, author_id=1, prompt=CANARY, claim=claim, **WORDS))
    await asyncio.gather(*(runtime.store.logs.insert(keyed) for keyed in late))
    rows = await sql.fetch(
        "SELECT user_id, request_id, trace_id, metadata::text, cost_usd, result"
        " FROM generation_generationlog LEFT JOIN generation_generationbody USING (id)"
        " ORDER BY user_id"
    )
    cost = late[0].row.cost_usd
    assert [tuple(row) for row in rows] == [
        (1, "", "", "{}", cost, None),
        (2, CANARY, CANARY, f'{{"name": "{CANARY}"}}', cost, CANARY),
        (3, CANARY, CANARY, f'{{"name": "{CANARY}"}}', cost, None),
    ]


async def test_an_insertion_under_way_is_waited_for(runtime, sql):
    """It does not see the tombstone, and nobody else sees its row."""
    row = make_row(CANARY, user_id=1).row
    insertion = sql.transaction()
    await insertion.start()
    await sql.execute(
        "INSERT INTO generation_generationlog SELECT * FROM json_populate_record("
        "NULL::generation_generationlog, $1)",
        f'{{"id": "{row.id}", "user_id": 1, "provider": "p", "model": "m", "status": "succeeded",'
        ' "error_type": "", "stop_reason": "", "attempts": [], "latency_ms": 1,'
        ' "llm_latency_ms": 1, "request_id": "r", "trace_id": "", "metadata": {},'
        ' "is_streamed": false, "is_estimated": false, "is_cost_assumed": false, "price": "",'
        ' "created_at": "2026-01-31", "stored_at": "2026-01-31"}',
    )
    await sql.execute(
        "INSERT INTO generation_generationbody (id, excerpt, prompt, system, result,"
        " result_cleaned, error, raw_reply) VALUES ($1, '', '', '', $2, false, '', '')",
        row.id,
        CANARY,
    )
    erasing = asyncio.create_task(in_thread(forget, "1", "--yes"))
    await until(ForgottenUser.objects.aexists, "the tombstone")
    assert not erasing.done()
    await insertion.commit()
    assert zeros(await erasing)
    assert await sql.fetchval("SELECT count(*) FROM generation_generationbody") == 0
