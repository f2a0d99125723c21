"""API keys: which requests are let in, and how soon a revoked key stops working."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

from generation import conf
from generation.checks import check_keys_required
from generation.llm.client import LLMClient
from generation.llm.policy import to_error
from generation.models import ApiKey, GenerationLog, Profile
from generation.records import Finding, Grant
from generation.runtime.process import Runtime
from tests.support.admin import session_of
from tests.support.keys import amake_key, bearer, make_key
from tests.support.problems import problem

Scope = ApiKey.Scope
GENERATE = "/api/v1/generate/1"


# --- which keys are accepted ---------------------------------------------------------------------


NO_KEYS: list[dict[str, str | bytes]] = [
    {},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer nonsense"},
    {"Authorization": "Basic dXNlcjE6cGFzc3dvcmQ="},
    {"Authorization": f"Bearer stc_{'0' * 12}_{'A' * 43}"},
    {"X-API-Key": ""},
    {"X-API-Key": f"stc_{'0' * 12}_{'A' * 43}"},
    {"Authorization": "Bearer " + "x" * 20_000},
    {"Authorization": b"Bearer \xff\xfe"},
]


@pytest.mark.parametrize(
    ("path", "body"), [("1", b""), ("1", b"{"), ("abc", b""), ("1", b"x" * 2_000_000)]
)
async def test_a_request_without_a_key_gets_401_before_anything_is_parsed(
    closed, subtests, path, body
):
    for headers in NO_KEYS:
        with subtests.test(headers=headers):
            answer = await closed.post(f"/api/v1/generate/{path}", headers=headers, content=body)
            assert problem(answer) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_stranger_is_refused_before_the_body_is_read(keys_required, runtime):
    from generation.asgi import get_service

    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": GENERATE, "raw_path": GENERATE.encode(),
        "query_string": b"", "root_path": "", "headers": [(b"content-length", b"1000")],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
    }  # fmt: skip
    await get_service()(scope, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_is_taken_from_either_header(closed, header):
    key = await amake_key()
    value = key if header == "X-API-Key" else f"bearer  {key}"
    assert (await closed.post(GENERATE, headers={header: value})).status_code == 200


async def test_two_different_keys_are_none(closed):
    one, other = await amake_key(), await amake_key()
    answer = await closed.post(GENERATE, headers={**bearer(one), "X-API-Key": other})
    assert problem(answer) == (401, "unauthorized")
    assert (await closed.post(GENERATE, headers={**bearer(one), "X-API-Key": one})).is_success


async def test_the_public_part_alone_opens_nothing(closed):
    key = await amake_key()
    forged = key[:-43] + "A" * 43
    assert problem(await closed.post(GENERATE, headers=bearer(forged))) == (401, "unauthorized")
    assert (await closed.post(GENERATE, headers=bearer(key))).is_success, "a guess harmed the key"


async def test_a_revoked_an_expired_and_an_inactive_owners_key_open_nothing(closed):
    past = datetime.now(UTC) - timedelta(seconds=1)
    for values in (
        {"revoked_at": past},
        {"expires_at": past},
        {"scope": Scope.USER, "user_id": 4},
    ):
        key = await amake_key(**values)
        answer = await closed.post("/api/v1/generate/4", headers=bearer(key))
        assert problem(answer) == (401, "unauthorized"), values


async def test_a_key_that_is_given_counts_even_where_none_is_required(client):
    key = await amake_key(scope=Scope.USER, user_id=2)
    assert problem(await client.post(GENERATE, headers=bearer(key))) == (403, "user-forbidden")
    answer = await client.post(GENERATE, headers=bearer("wrong"))
    assert problem(answer) == (401, "unauthorized")


# --- for whom -------------------------------------------------------------------------------------


SCOPES: list[tuple[dict[str, Any], list[int], list[int]]] = [
    ({"scope": Scope.USER, "user_id": 1}, [1], [2, 99]),
    ({"scope": Scope.USERS, "users": [1, 2]}, [1, 2], [3, 99]),
    ({"scope": Scope.USERS}, [], [1, 99]),
    ({"scope": Scope.ALL}, [1, 2], []),
]


async def test_a_key_generates_for_its_users_only(closed, subtests):
    for values, allowed, forbidden in SCOPES:
        with subtests.test(values=values, allowed=allowed, forbidden=forbidden):
            key = await amake_key(**values)
            for user in allowed:
                answer = await closed.post(f"/api/v1/generate/{user}", headers=bearer(key))
                assert answer.status_code == 200
            for user in forbidden:
                answer = await closed.post(f"/api/v1/generate/{user}", headers=bearer(key))
                assert problem(answer) == (403, "user-forbidden")


async def test_a_refusal_does_not_tell_whether_there_is_such_a_user(closed):
    key = await amake_key(scope=Scope.USER, user_id=1)
    there, inactive, nobody = [
        await closed.post(f"/api/v1/generate/{user}", headers=bearer(key)) for user in (2, 4, 999)
    ]
    assert there.text.replace("user 2", "user 999") == nobody.text
    assert inactive.text.replace("user 4", "user 999") == nobody.text


async def test_a_set_of_users_that_becomes_empty_is_not_everybody(closed):
    key = await amake_key(scope=Scope.USERS, users=[3])
    await get_user_model().objects.filter(pk=3).adelete()
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert problem(answer) == (403, "user-forbidden")


def test_the_database_itself_refuses_a_key_for_one_user_without_that_user(committed):
    for values in ({"scope": Scope.USER}, {"scope": Scope.ALL, "user_id": 1}):
        with pytest.raises(IntegrityError), transaction.atomic():
            make_key(**values)


async def test_a_users_deletion_takes_the_users_keys_along(closed):
    key = await amake_key(scope=Scope.USER, user_id=3)
    await get_user_model().objects.filter(pk=3).adelete()
    answer = await closed.post("/api/v1/generate/3", headers=bearer(key))
    assert problem(answer) == (401, "unauthorized")


# --- with which model -----------------------------------------------------------------------------


async def test_a_key_uses_its_models_only_wherever_they_are_named(closed):
    default = (await closed.post(GENERATE, headers=bearer(await amake_key()))).json()["model"]
    for allowed in (f"simulated:{default}", "simulated", f"anthropic, simulated:{default}"):
        key = await amake_key(allowed_models=allowed)
        assert (await closed.post(GENERATE, headers=bearer(key))).status_code == 200, allowed
    key = await amake_key(allowed_models="anthropic:claude-x,openai")
    before = await GenerationLog.objects.acount()
    for body in ({}, {"provider": "simulated"}, {"model": default}):
        answer = await closed.post(GENERATE, headers=bearer(key), json=body)
        assert problem(answer) == (403, "model-forbidden")
    await Profile.objects.filter(user_id=1).aupdate(provider="simulated", model=default)
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert problem(answer) == (403, "model-forbidden")
    assert await GenerationLog.objects.acount() == before, "nothing was spent, so no row"


async def test_models_that_can_not_be_read_allow_nothing(closed):
    key = await amake_key(allowed_models="oracle:9i")
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert problem(answer) == (403, "model-forbidden")


async def test_a_fallback_that_the_key_forbids_is_not_asked(monkeypatch):
    from generation.records import Prompt

    settings = conf.parse(
        {
            "LLM_SIMULATED_FAULTS": "529=1",
            "LLM_FALLBACKS": "openai:gpt-b",
            "OPENAI_API_KEY": "k",
            "LLM_PROVIDER": "simulated",
            "LLM_SIMULATED_LATENCY": "0",
            "LLM_MAX_ATTEMPTS": "1",
        }
    )
    async with LLMClient.open(settings) as llm:
        asked = []

        async def ask(call, model, *, has_fallback):
            asked.append(model)
            raise to_error(Finding.OVERLOADED, "no")

        for upstream in llm._upstreams.values():
            monkeypatch.setattr(upstream, "ask", ask)
        for targets, count in (((), 2), ((("simulated", ""),), 1)):
            asked.clear()
            grant = Grant(1, None, targets)
            with pytest.raises(Exception, match="no"):
                (await llm.complete(Prompt("x", "", "simulated", "", 10, grant))).require_reply()
            assert len(asked) == count


# --- the operators' pages -------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["/metrics", "/api/v1/pool"])
async def test_with_keys_required_the_pages_are_for_staff_and_service_keys(closed, page):
    service = await amake_key()
    one_users = await amake_key(scope=Scope.USER, user_id=1)
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    assert problem(await closed.get(page)) == (403, "staff-only")
    assert problem(await closed.get(page, headers=bearer(one_users))) == (403, "staff-only")
    assert problem(await closed.get(page, headers=bearer("wrong"))) == (401, "unauthorized")
    assert (await closed.get(page, headers=bearer(service))).status_code == 200
    assert (await closed.get(page, headers=await session_of(staff))).status_code == 200


@pytest.mark.parametrize("page", ["/metrics", "/api/v1/pool"])
async def test_a_service_key_sees_the_pages_without_a_thread(
    closed, thread_entries, page
):  # fmt: skip
    key = await amake_key()
    await closed.get(page, headers=bearer(key))
    thread_entries.clear()
    assert (await closed.get(page, headers=bearer(key))).status_code == 200
    assert thread_entries == []


async def test_livez_and_readyz_need_no_key(closed):
    assert (await closed.get("/livez")).status_code == 200
    assert (await closed.get("/readyz")).status_code == 200


# --- without keys ---------------------------------------------------------------------------------


ORIGINS = [
    ({}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "same-origin", "Host": "rebound.example"}, 403),
]


async def test_another_sites_page_can_not_spend_what_is_open_on_localhost(
    client, settings, subtests
):
    settings.ALLOWED_HOSTS = ["localhost"]
    for headers, status in ORIGINS:
        with subtests.test(headers=headers):
            answer = await client.post(GENERATE, headers=headers)
            assert answer.status_code == status
            assert status == 200 or problem(answer) == (403, "cross-site")


@pytest.mark.parametrize(
    ("debug", "word", "required"),
    [
        (True, None, False),
        (False, None, True),
        (True, "1", True),
        (False, "0", False),
    ],
)
def test_keys_are_required_unless_debug_is_on_or_it_is_said(settings, debug, word, required):
    settings.DEBUG = debug
    values = {} if word is None else {"API_KEYS_REQUIRED": word}
    assert conf.parse(values).keys_required is required
    settings.STACCATO = {**settings.STACCATO, **values}
    assert [error.id for error in check_keys_required()] == ([] if required else ["staccato.E004"])


async def test_an_open_service_in_production_says_so_loudly(users, orm, settings, caplog):
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": "0"}
    for debug, warned in ((True, False), (False, True)):
        settings.DEBUG = debug
        settings.SECRET_KEY = settings.DATABASE_URL = "given"
        caplog.clear()
        async with Runtime.open():
            pass
        loud = [one for one in caplog.records if one.levelno >= logging.CRITICAL]
        assert bool(loud) is warned
    assert "STACCATO_API_KEYS_REQUIRED" in loud[0].getMessage()
