"""The essential path of a host whose users' keys are integers, UUIDs or text. A program.

Each function is a law; they build on each other.
"""

# ruff: noqa: E402  # Django is set up before its models are imported
from __future__ import annotations

import asyncio
import io
import json
import os
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import quote, unquote, urlencode
from uuid import uuid4

import django
import httpx
import pytest

django.setup()

from django.contrib.admin.utils import quote as admin_quote
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from django.test.utils import setup_test_environment

from generation import Update, conf, generate, generate_sync, user_keys
from generation.asgi import get_application
from generation.database import libpq
from generation.database.engine import Database
from generation.journal import lines
from generation.journal.file import JournalFile
from generation.models import (
    ApiKey,
    ForgottenUser,
    GenerationLog,
    IdempotencyKey,
    Profile,
    UsageLog,
)
from generation.pipeline.idempotency import fingerprint
from generation.python_api import loop_thread
from generation.python_api.requests import make_request
from generation.records import Claim
from generation.rollups.upkeep import Rollups
from generation.runtime.process import Runtime, current
from tests.hosts import program
from tests.support.keys import bearer
from tests.support.keys import command as apikey
from tests.support.rows import make_row
from tests.support.waiting import until

KIND = os.environ["USER_KEY"]
NO_KEYS = {
    "integer": ["0", "01", "+1", "1.0", "x", str(2**63)],
    "uuid": ["7", "x", "{00000000-0000-4000-8000-000000000000}", uuid4().hex],
    "text": ["\0", "x" * 300],
}[KIND]
NOBODYS = {"integer": "99", "uuid": str(uuid4()), "text": "nobody"}[KIND]
people = get_user_model()
folder = Path(conf.load().journal_dir)


def person(name: str, **values):
    if KIND == "text":
        values["id"] = f"{name}@example.org: ü & 100%"
    return people.objects.create_user(username=name, **values)


def key_of(user) -> str:
    """As the core and the outside have it."""
    return str(user.pk)


def has_a_user_of_its_own_kind():
    call_command("migrate", verbosity=0)
    call_command("check", fail_level="WARNING")
    assert user_keys.kind() == KIND
    boss = people.objects.create_superuser(username="boss", **(
        {"id": "boss"} if KIND == "text" else {}
    ))  # fmt: skip
    for name in ("ann", "bob"):
        person(name)
    call_command("profile", "set", "ann", "--template", "Hello.", stdout=io.StringIO())
    call_command("profile", "set", key_of(boss), "--template", "Hi.", stdout=io.StringIO())
    assert set(Profile.objects.values_list("user__username", flat=True)) == {"ann", "boss"}


async def generates_over_http_for_the_users_of_a_key():
    ann, bob = [await people.objects.aget(username=name) for name in ("ann", "bob")]
    loop = asyncio.get_running_loop()

    def make(*words):
        return loop.run_in_executor(None, lambda: apikey("create", "a key", *words).strip())

    anns = bearer(await make("--user", "ann"))
    both = bearer(await make("--users", key_of(ann), "bob"))
    everybodys = bearer(await make("--all-users"))
    path = f"/api/v1/generate/{quote(key_of(ann), safe='')}"
    chat = {"model": "simulated", "messages": [{"role": "user", "content": "Hi."}]}
    async with Runtime.open():
        transport = httpx.ASGITransport(get_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = await client.post(path, headers={**anns, "Idempotency-Key": "k"})
            assert first.status_code == 200, first.text
            again = await client.post(path, headers={**both, "Idempotency-Key": "k"})
            assert again.json()["id"] == first.json()["id"], again.text
            stored = await client.get(f"/api/v1/generations/{first.json()['id']}", headers=anns)
            assert stored.status_code == 200, stored.text

            foreign = f"/api/v1/generate/{quote(key_of(bob), safe='')}"
            assert (await client.post(foreign, headers=anns)).status_code == 403
            hidden = await client.post("/v1/chat/completions", json=chat, headers=both)
            assert hidden.status_code >= 400  # whose?
            for base, key in (
                ("/v1", anns),
                (f"/u/{quote(key_of(ann), safe='')}/v1", both),
                (f"/u/{quote(key_of(bob), safe='')}/v1", everybodys),
            ):
                answer = await client.post(f"{base}/chat/completions", json=chat, headers=key)
                assert answer.status_code == 200, (base, answer.text)
            for text in NO_KEYS:
                named = quote(text, safe="")
                answer = await client.post(f"/api/v1/generate/{named}", headers=everybodys)
                assert answer.status_code == 422, (text, answer.text)
                url = f"/u/{named}/v1/chat/completions"
                answer = await client.post(url, json=chat, headers=everybodys)
                assert answer.status_code == 404, (text, answer.text)
            answer = await client.post(f"/api/v1/generate/{NOBODYS}", headers=everybodys)
            assert answer.status_code == 404, answer.text
            if KIND == "uuid":  # in one spelling inside
                shouted = f"/api/v1/generate/{key_of(ann).upper()}"
                answer = await client.post(shouted, headers=anns)
                assert answer.status_code == 200, answer.text
                await GenerationLog.objects.filter(pk=answer.json()["id"]).adelete()
    names = [row.user.username async for row in GenerationLog.objects.select_related("user")]
    assert sorted(names) == ["ann", "ann", "ann", "bob"]
    assert await IdempotencyKey.objects.aget(user=ann, key="k")
    assert await UsageLog.objects.filter(user=ann).acount() >= 3


def generates_from_python():
    ann = people.objects.get(username="ann")
    effect = Update(people, {"pk": ann.pk}, {"last_name": "asked"})
    generate_sync(ann, prompt="x", effects=[effect], idempotency_key="python")
    again = generate_sync(ann.pk, prompt="x", effects=[effect], idempotency_key="python")
    assert again.replayed
    assert people.objects.get(pk=ann.pk).last_name == "asked"
    loop_thread.close()


async def stores_what_waited_in_a_journal():
    ann = await people.objects.aget(username="ann")
    async with Runtime.open():
        database = await current().store.identify()
        request = make_request(ann, {"prompt": "waited", "idempotency_key": "waited"})
        asked = fingerprint(request, current().idempotency._hash)
        claim = Claim(request.user_id, "waited", asked, uuid4())
        assert (await current().store.claims.claim(claim)).won
    row = make_row("of a journal", user_id=user_keys.key_of(ann), claim=claim)
    _leave(database, row)
    async with Runtime.open():
        await until(GenerationLog.objects.filter(pk=row.row.id).aexists, "the row")
        replayed = await generate(ann, prompt="waited", idempotency_key="waited")
        assert (replayed.id, replayed.result) == (row.row.id, "of a journal")


def shows_users_in_the_admin():
    setup_test_environment()  # so that pages keep their contexts
    ann = people.objects.get(username="ann")
    browser = Client(raise_request_exception=True)
    browser.force_login(people.objects.get(username="boss"))
    logs = "/admin/generation/generationlog/"
    anns = GenerationLog.objects.filter(user=ann).count()
    for term in ("ann", key_of(ann)):
        page = browser.get(logs, {"q": term})
        assert len(page.context["cl"].result_list) == anns, term
        assert ">ann<" in page.content.decode()
        for table in ("usagelog", "profile", "generationaccess"):
            page = browser.get(f"/admin/generation/{table}/", {"q": term})
            assert page.status_code == 200, (table, term)
    page = browser.get(logs, {"q": key_of(ann)})
    assert f"?user={quote(key_of(ann), safe='')}" in (
        browser.get(f"{logs}{page.context['cl'].result_list[0].pk}/change/").content.decode()
    )
    asyncio.run(_roll_up())
    shown = browser.get(f"{logs}dashboard/").content.decode()
    assert f"?{urlencode({'user': key_of(ann)})}&amp;" in shown, "a ranking of users"
    assert ">ann<" in shown
    assert browser.get(f"{logs}errors/").status_code == 200
    spending = browser.get(f"{logs}spending/", {"user": key_of(ann)})
    assert spending.context["title"] == "Spending: ann"
    assert spending.context["table"]["rows"], "her models"
    exported = asyncio.run(_read(browser.get(f"{logs}export/", {"q": "ann"})))
    assert {str(json.loads(line)["user_id"]) for line in exported.splitlines()} == {key_of(ann)}
    made = browser.post(
        "/admin/generation/apikey/add/", {"name": "ann's", "scope": "user", "user": key_of(ann)}
    )
    assert made.status_code == 200, made.content
    assert key_of(ann) in unquote(unescape(made.content.decode()))
    key = ApiKey.objects.get(name="ann's")
    page = browser.get(f"/admin/generation/apikey/{key.pk}/change/")
    assert page.status_code == 200
    page = browser.get(f"/admin/generation/profile/{quote(admin_quote(key_of(ann)))}/change/")
    assert page.status_code == 200, page


def says_what_the_older_driver_can_not_do():
    if os.environ.get("DRIVER") != "psycopg2":
        return
    with pytest.raises(CommandError, match="psycopg 3"):
        call_command("staccato_archive", str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICE", "theirs")
        with pytest.raises(libpq.NoService, match="psycopg 3"):
            libpq.defaults()


async def forgets_a_user():
    ann, bob = [await people.objects.aget(username=name) for name in ("ann", "bob")]
    async with Runtime.open():
        database = await current().store.identify()
    row = make_row("CANARY", user_id=user_keys.key_of(ann), prompt="CANARY")
    _leave(database, row, make_row("bob's", user_id=user_keys.key_of(bob)))
    out = io.StringIO()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(
        None, lambda: call_command("staccato_forget", key_of(ann), "--yes", stdout=out)
    )
    assert "1  rows in this host's journals" in out.getvalue(), out.getvalue()
    left = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert b"CANARY" not in left
    assert b"bob's" in left
    assert await ForgottenUser.objects.aget(pk=ann.pk)
    assert not await ApiKey.objects.filter(user=ann).aexists()
    bodies = GenerationLog.objects.filter(body__isnull=False)
    assert not await bodies.filter(user=ann).aexists()
    assert await bodies.filter(user=bob).aexists()
    await generate(ann, prompt="not kept")
    await asyncio.to_thread(loop_thread.close)
    assert not await bodies.filter(user=ann).aexists()


async def _read(page) -> bytes:
    return b"".join([part async for part in page])


async def _roll_up() -> None:
    settings = conf.load()
    at = connections.settings[settings.database]
    async with Database.open(settings, at, strict=True) as database:
        await Rollups(database, settings).follow(every=timedelta(0), limit_s=60)


def _leave(database: str, *rows) -> None:
    """What a process leaves that has died."""
    file = JournalFile.create(folder, database, 65_536)
    file.append([lines.encode(lines.from_row(row)) for row in rows])
    file.close()


if __name__ == "__main__":
    program.run(
        has_a_user_of_its_own_kind,
        generates_over_http_for_the_users_of_a_key,
        generates_from_python,
        stores_what_waited_in_a_journal,
        shows_users_in_the_admin,
        says_what_the_older_driver_can_not_do,
        forgets_a_user,
    )
