"""A unique text for each mode is found where the mode says, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection

from generation.models import GenerationLog, Profile
from tests.support import http
from tests.support.admin import get, log_in
from tests.support.dialects import AnthropicDialect
from tests.support.locks import locked
from tests.support.waiting import until

DIALECT = AnthropicDialect()
USERS = {1: "full", 2: "redacted", 3: "hashed", 4: "metadata"}
KEY = base64.b64encode(b"k" * 32).decode()
ECHOES = ["answer", "parts", "error", "unreadable", "alarm"]


def canary(mode: str, place: str = "text") -> str:
    """Every mode but `full` hides it: the masks know an address."""
    return f"canary.{mode}.{place}@example.org"


async def echo(exchange) -> None:
    """A provider that repeats the prompt wherever it can; the prompt says where."""
    text = exchange.json["messages"][0]["content"]
    kind = next(kind for kind in ECHOES if kind in text)
    status, body = {
        "answer": (200, DIALECT.answer(text)),
        "parts": (200, DIALECT.tool_use(text)),
        "error": (400, DIALECT.error("caller", f"I can't read {text}")),
        "unreadable": (200, {"what": text}),
        # In words that are not quite the prompt's.
        "alarm": (401, DIALECT.error("key", f"invalid x-api-key, in {text.upper()}")),
    }[kind]
    await exchange.reply(status, json.dumps(body).encode())


async def ask(running, user: int, kind: str, place: str = "text", **headers: str):
    mode = USERS[user]
    asked = {"input": f"{kind} {canary(mode, place)}", "metadata": {"who": canary(mode, "label")}}
    return await http.generate(running.port, user, asked, list(headers.items()))


def without_mode(answer, user: int):
    """What differs between callers only because their texts do."""
    told = {name: answer.json().get(name) for name in ("result", "detail", "type", "usage")}
    return answer.status, str(told).replace(USERS[user], "MODE")


def give_modes() -> None:
    get_user_model().objects.filter(pk=4).update(is_active=True)
    for user, mode in USERS.items():
        Profile.objects.filter(pk=user).update(
            prompt_template="$input", system=f"system {canary(mode)}", log_content=mode
        )


def all_tables() -> str:
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            if table.startswith("generation_") and table != "generation_profile":
                cursor.execute(f'SELECT * FROM "{table}"')
                rows += cursor.fetchall()
    return repr(rows)


def refused_rows() -> str:
    out = io.StringIO()
    call_command("staccato_journal", "show", "--all", stdout=out)
    return out.getvalue()


def admin_pages() -> str:
    staff = log_in(get_user_model().objects.create_superuser("root", id=60))
    pages = ["/admin/generation/generationlog/"]
    alike = ("user_id", "status", "error_type", "stop_reason")
    logs = GenerationLog.objects.order_by(*alike).distinct(*alike)
    pages += [f"{pages[0]}{log.pk}/change/" for log in logs]
    return "".join(get(staff, page).html for page in pages)


def found_in(places: dict[str, str], kind: str) -> set[tuple[str, str]]:
    return {
        (mode, place)
        for mode in USERS.values()
        for place, text in places.items()
        if canary(mode, kind).lower() in text.lower()
    }


def texts_of(folder: Path, kind: str) -> str:
    return "".join(path.read_text() for path in folder.glob(f"*.{kind}"))


@pytest.mark.filterwarnings("ignore:Overriding get_action_choices")
@pytest.mark.parametrize("keys", ["", f"k1:{KEY}"], ids=["plain", "encrypted"])
async def test_a_text_is_found_only_where_its_mode_says(
    serve, sql, llm, orm, database_url, settings, tmp_path, keys
):
    llm.behave = echo
    await sync_to_async(give_modes)()
    where = {"STACCATO_JOURNAL_DIR": str(tmp_path), "STACCATO_BODY_KEYS": keys}
    how = {"STACCATO_WRITE_TIMEOUT": "2", "LLM_MAX_ATTEMPTS": "1", "LOG_LEVEL": "DEBUG"}
    async with serve(**where, **how) as running:
        # One alarm a minute is logged: the strictest user's.
        await ask(running, 4, "alarm")
        for kind in ECHOES:
            answers = [without_mode(await ask(running, user, kind), user) for user in USERS]
            assert len(set(answers)) == 1, "the mode changes what the caller is answered"
        for user, mode in USERS.items():
            first, again = [
                await ask(running, user, "answer", "keyed", **{"Idempotency-Key": "k"})
                for _ in range(2)
            ]
            assert again.headers["idempotency-replayed"] == "true"
            assert again.json()["result"] == first.json()["result"]
            assert canary(mode, "keyed") in again.json()["result"]
        async with locked(database_url, "generation_generationlog"):
            await asyncio.gather(*(ask(running, user, "answer") for user in USERS))
            journal = texts_of(tmp_path, "journal")
        await running.until_pool(lambda now: now["journal"]["rows"] == 0, "the replay")
        await sql.execute("ALTER TABLE generation_generationlog"
                          " ADD CONSTRAINT odd CHECK (request_id <> 'odd') NOT VALID")  # fmt: skip
        try:
            for user in USERS:
                await ask(running, user, "answer", **{"X-Request-ID": "odd"})
        finally:
            await sql.execute("ALTER TABLE generation_generationlog DROP CONSTRAINT odd")
        count = len(USERS)
        await until(lambda: texts_of(tmp_path, "refused").count('"v":2') == count, "set aside")
        refused = texts_of(tmp_path, "refused")
        metrics = (await http.request(running.port, "GET", "/metrics")).body.decode()
        pool, log = str(await running.pool()), running.log
    assert refused.count('"v":2') == journal.count('"v":2') == len(USERS)
    settings.STACCATO = {**settings.STACCATO, "JOURNAL_DIR": str(tmp_path), "BODY_KEYS": keys}
    looks = (refused_rows, all_tables, admin_pages)
    shown, tables, pages = [await sync_to_async(look)() for look in looks]
    assert "An operator has to fix this" in log
    assert "because of a bug" not in log

    places = {
        "journal": journal, "refused": refused, "shown": shown, "tables": tables,
        "pages": pages, "metrics": metrics, "pool": pool, "log": log,
    }  # fmt: skip
    stored = {("full", place) for place in ("journal", "refused", "shown", "tables", "pages")}
    assert found_in(places, "text") == ({("full", "pages")} if keys else stored)
    # A caller's labels are searched for, so they are masked, but neither hashed nor encrypted.
    assert found_in(places, "label") == stored
    held = {mode for mode in USERS.values() if canary(mode, "keyed") in tables}
    assert held == (set() if keys else set(USERS.values())), "a repetition needs the result"
