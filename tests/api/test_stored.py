"""A generation that is asked for again: whose it is, and what the log still has."""

from __future__ import annotations

from uuid import uuid4

import pytest

from generation.models import ApiKey, GenerationBody, GenerationLog
from tests.support.events import parse
from tests.support.keys import amake_key, bearer
from tests.support.problems import problem
from tests.support.streams import kinds_of, text_of

Scope = ApiKey.Scope
WAYS = ["", "/events"]


async def generate(client, user_id: int = 1) -> dict:
    return (await client.post(f"/api/v1/generate/{user_id}", json={"input": "hi"})).json()


async def test_a_key_sees_its_users_generations_and_no_others(client):
    made = await generate(client, 1)
    own = await amake_key(scope=Scope.USER, user_id=1)
    service = await amake_key([1, 2], scope=Scope.USERS)
    other = await amake_key(scope=Scope.USER, user_id=2)
    others = await amake_key([2, 3], scope=Scope.USERS)
    for way in WAYS:
        path = f"/api/v1/generations/{made['id']}{way}"
        nowhere = f"/api/v1/generations/{uuid4()}{way}"
        for key in (own, service):
            assert (await client.get(path, headers=bearer(key))).status_code == 200
        for foreign in (other, others):
            refusal = await client.get(path, headers=bearer(foreign))
            unknown = await client.get(nowhere, headers=bearer(foreign))
            assert problem(refusal) == problem(unknown) == (404, "not-found")
            assert refusal.json() == unknown.json(), "one may not learn that it exists"


async def test_a_key_that_is_required_is_required_here_too(client, runtime, monkeypatch):
    made = await generate(client)
    strict = runtime.settings.model_copy(update={"api_keys_required": True})
    monkeypatch.setattr(runtime, "settings", strict)
    for way in WAYS:
        answer = await client.get(f"/api/v1/generations/{made['id']}{way}")
        assert problem(answer) == (401, "unauthorized")


async def test_only_an_id_in_its_one_spelling_is_an_address(client):
    made = (await generate(client))["id"]
    for spelling in (made.upper(), made.replace("-", ""), f"urn:uuid:{made}", "1", "x" * 300):
        for way in WAYS:
            answer = await client.get(f"/api/v1/generations/{spelling}{way}")
            assert problem(answer) == (404, "not-found")


async def test_a_stored_generation_is_the_answer_and_its_status(client):
    made = await generate(client)
    kept = await client.get(f"/api/v1/generations/{made['id']}")
    assert kept.json() == made | {"status": "succeeded"}


async def test_texts_that_are_not_kept_are_empty(client):
    made = await generate(client)
    await GenerationBody.objects.filter(log_id=made["id"]).adelete()
    kept = await client.get(f"/api/v1/generations/{made['id']}")
    assert kept.json() == made | {"status": "succeeded", "result": ""}
    events = parse((await client.get(f"/api/v1/generations/{made['id']}/events")).content)
    assert [event.kind for event in events] == ["start", "usage", "done"]
    await GenerationLog.objects.all().adelete()
    assert problem(await client.get(f"/api/v1/generations/{made['id']}")) == (404, "not-found")


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "reduced"])
async def test_a_position_in_a_text_that_is_not_kept_brings_no_part_of_another(client, is_held):
    made = await generate(client)
    await GenerationBody.objects.filter(log_id=made["id"]).aupdate(
        content="redacted", result="[email] and more", result_held=is_held
    )
    path = f"/api/v1/generations/{made['id']}/events"
    everything = parse((await client.get(path)).content)
    rest = parse((await client.get(path, headers={"Last-Event-ID": "8"})).content)
    assert text_of(everything) == "[email] and more"
    assert text_of(rest) == ("and more" if is_held else "")
    assert kinds_of(rest) == ["usage", "done"]
    assert rest[-1].data["result"] == "[email] and more"


async def test_a_last_event_id_that_no_event_has_is_refused(client):
    path = f"/api/v1/generations/{(await generate(client))['id']}/events"
    for given in ("x", "-1", "1.5", "9" * 13):
        answer = await client.get(path, headers={"Last-Event-ID": given})
        assert problem(answer) == (422, "invalid-request")


async def test_reading_a_generation_enters_no_thread_and_takes_no_place(
    client, runtime, thread_entries
):
    made = await generate(client)
    peak = runtime.admission.peak
    thread_entries.clear()
    for way in WAYS:
        await client.get(f"/api/v1/generations/{made['id']}{way}")
    assert (thread_entries, runtime.admission.peak) == ([], peak)
