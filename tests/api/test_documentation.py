"""The API's documentation: made once, and shown to whom it is for."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from generation import conf
from generation.api.native.routes import api
from tests.support.admin import session_of
from tests.support.keys import amake_key, bearer
from tests.support.problems import problem

DOCUMENT = "/api/v1/openapi.json"
PAGES = [DOCUMENT, "/api/v1/docs"]


@pytest.fixture
def access(runtime, settings):
    def change(**values: str) -> None:
        runtime.settings = conf.parse({**settings.STACCATO, **values})

    return change


async def test_the_document_is_made_once(client, monkeypatch, thread_entries):
    first = await client.get(DOCUMENT)
    assert first.headers["content-type"] == "application/json"
    assert set(first.json()["paths"]) == {
        "/api/v1/generate/{user_id}",
        "/api/v1/generations/{generation_id}",
        "/api/v1/generations/{generation_id}/events",
        "/api/v1/limits",
        "/api/v1/pool",
        "/api/v1/pool/history",
    }
    monkeypatch.setattr(api, "get_openapi_schema", None)
    thread_entries.clear()
    for _ in range(20):
        assert (await client.get(DOCUMENT)).content == first.content
    assert not thread_entries


@pytest.mark.parametrize("page", PAGES)
async def test_everybody_may_read_it_where_no_key_is_required(client, page):
    assert (await client.get(page)).status_code == 200


@pytest.mark.parametrize("page", PAGES)
async def test_with_keys_required_it_is_for_staff_and_for_every_key(client, access, page):
    access(API_KEYS_REQUIRED="1")
    assert problem(await client.get(page)) == (403, "staff-only")
    wrong = await client.get(page, headers=bearer("stc_00000000_" + "0" * 43))
    assert problem(wrong) == (401, "unauthorized")
    user = await get_user_model().objects.aget(id=1)
    assert (await client.get(page, headers=await session_of(user))).status_code == 403
    service_key, user_key = await amake_key(), await amake_key(scope="user", user_id=1)
    for key in (service_key, user_key):
        assert (await client.get(page, headers=bearer(key))).status_code == 200
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    assert (await client.get(page, headers=await session_of(staff))).status_code == 200


@pytest.mark.parametrize("page", PAGES)
async def test_it_can_be_open_or_off_whatever_else_is_required(client, access, page):
    access(API_KEYS_REQUIRED="1", DOCS_ACCESS="open")
    assert (await client.get(page)).status_code == 200
    access(DOCS_ACCESS="off")
    assert problem(await client.get(page)) == (404, "not-found")


DIALECTS = {
    "openai": {
        *("/chat/completions", "/embeddings", "/models", "/models/{name}"),
        *("/responses", "/responses/{response_id}", "/responses/{response_id}/cancel"),
    },
    "anthropic": {"/messages", "/messages/count_tokens"},
}


@pytest.mark.parametrize(("dialect", "paths"), DIALECTS.items())
async def test_each_vendors_dialect_has_a_document_of_its_own(client, dialect, paths):
    for base in ("/v1", "/u/1/v1"):
        document = (await client.get(f"{base}/{dialect}.json")).json()
        assert set(document["paths"]) == {base + path for path in paths}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["responses"]["200"]["content"]["application/json"]["example"]
    assert (await client.get(f"/v1/{dialect}-docs")).status_code == 200
