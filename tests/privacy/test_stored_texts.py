"""Texts in the database: results that are held for a day, and keys that change."""

from __future__ import annotations

import base64
import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from generation import conf
from generation.models import GenerationBody, GenerationLog, Profile
from generation.privacy.encryption import TEXTS, KeyRing
from generation.privacy.policy import HASH_PREFIX
from generation.runtime.process import Runtime
from generation.store.held_results import HeldResults
from tests.support.admin import LOGS, get, save_log
from tests.support.in_process import in_process_client

A, B = (f"{name}:{base64.b64encode(name.encode() * 32).decode()}" for name in "ab")
GENERATE = "/api/v1/generate/1"
KEYED = {"Idempotency-Key": "k"}


def with_keys(settings, keys: str) -> None:
    settings.STACCATO = {**settings.STACCATO, "BODY_KEYS": keys}


def rekey(*arguments: str) -> str:
    out = io.StringIO()
    call_command("staccato_bodies", "rekey", *arguments, stdout=out)
    return out.getvalue()


def seal(log: GenerationLog, settings) -> None:
    """As the service would have stored it with these keys."""
    ring = KeyRing.of(conf.parse(settings.STACCATO))
    texts = {name: getattr(log.body, name) for name in TEXTS}
    sealed = ring.encrypt(log.pk, texts, ring.current)
    GenerationBody.objects.filter(pk=log.pk).update(**sealed, encryption_key=ring.current)


@pytest.mark.parametrize("content", ["redacted", "hashed", "metadata"])
@pytest.mark.parametrize("keys", ["", A], ids=["plain", "encrypted"])
async def test_a_held_result_is_reduced_once_its_request_cant_be_repeated(
    users, orm, settings, content, keys
):
    with_keys(settings, keys)
    await Profile.objects.aupdate(log_content=content)
    async with Runtime.open() as runtime, in_process_client() as client:
        first = await client.post(GENERATE, headers=KEYED)
        await runtime.settle_held_results()
        again = await client.post(GENERATE, headers=KEYED)
        assert again.json()["result"] == first.json()["result"], "a day has not passed"
        body = await GenerationBody.objects.aget()
        assert body.result_held
        assert bool(body.encryption_key) == bool(keys)

        later = HeldResults(runtime.database, kept=timedelta(0))
        await later.settle(runtime.content.settle, rows=1)
        body = await GenerationBody.objects.aget()
        assert not body.result_held
        ring = KeyRing.of(conf.load())
        kept = ring.read(body.pk, "result", body.result, body.encryption_key)
        expected = {"redacted": first.json()["result"], "metadata": ""}
        assert kept == expected.get(content, kept)
        assert kept.startswith(HASH_PREFIX) == (content == "hashed")

        # Its answer is gone, so the key is free again: no repetition gets a hash for an answer.
        again = await client.post(GENERATE, headers=KEYED)
        assert again.json()["id"] != first.json()["id"]
        assert not again.json()["result"].startswith(HASH_PREFIX)


async def test_a_result_that_was_erased_meanwhile_stays_erased(users, orm):
    await Profile.objects.aupdate(log_content="hashed")
    async with Runtime.open() as runtime, in_process_client() as client:
        await client.post(GENERATE, headers=KEYED)

        def erase_meanwhile(held):
            GenerationBody.objects.update(result="")
            connection.close()  # of this thread, which ends
            return runtime.content.settle(held)

        await HeldResults(runtime.database, kept=timedelta(0)).settle(erase_meanwhile)
    body = await GenerationBody.objects.aget()
    assert (body.result, body.result_held) == ("", False)


async def test_a_repetition_whose_answer_cant_be_read_is_told_to_wait_and_pays_nothing(
    users, orm, settings
):
    with_keys(settings, A)
    async with Runtime.open(), in_process_client() as client:
        await client.post(GENERATE, headers=KEYED)
    with_keys(settings, B)
    async with Runtime.open(), in_process_client() as client:
        answer = await client.post(GENERATE, headers=KEYED)
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("answer-unreadable")
    assert await GenerationLog.objects.acount() == 1


async def test_the_strictest_of_profile_and_key_is_stored(users, orm, settings, peppered):
    from tests.support.keys import amake_key, bearer

    await Profile.objects.aupdate(log_content="redacted")
    key = await amake_key(log_content="metadata")
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": True}
    async with Runtime.open(), in_process_client() as client:
        assert (await client.post(GENERATE, headers=bearer(key))).status_code == 200
    assert (await GenerationBody.objects.aget()).content == "metadata"


def test_rekey_encrypts_all_texts_with_the_first_key_and_can_be_run_again(user, settings):
    logs = [save_log(n, prompt=f"prompt {n}") for n in range(5)]
    with_keys(settings, A)
    seal(logs[0], settings)
    with_keys(settings, f"{B},{A}")
    assert "5 rows were encrypted with the key b" in rekey("--batch", "2")
    ring = KeyRing.of(conf.load())
    for body in GenerationBody.objects.all():
        assert body.encryption_key == "b"
        assert ring.reveal(body).prompt.startswith("prompt ")
    assert "0 rows" in rekey()


def test_rekey_leaves_what_it_cant_read_and_says_so(user, settings):
    log = save_log()
    with_keys(settings, A)
    seal(log, settings)
    before = GenerationBody.objects.values().get()
    with_keys(settings, B)
    save_log(1)
    with pytest.raises(CommandError, match="1 rows can't be read"):
        rekey()
    assert GenerationBody.objects.values().get(pk=log.pk) == before


def test_rekey_without_a_key_says_what_is_missing(user):
    with pytest.raises(CommandError, match="STACCATO_BODY_KEYS is empty"):
        rekey()


def test_the_admin_shows_encrypted_texts_and_names_a_key_that_is_gone(staff, settings):
    with_keys(settings, A)
    log = save_log(prompt="Why is the sky blue?")
    seal(log, settings)
    pages = [LOGS, f"{LOGS}{log.pk}/change/"]
    assert all("Why is the sky blue?" in get(staff, page).html for page in pages)
    with_keys(settings, "")
    gone = "[encrypted with key a, which is not configured]"
    assert all(gone in get(staff, page).html for page in pages)
