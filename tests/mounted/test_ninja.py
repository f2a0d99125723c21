"""The router in a project's own API: its logins, our answers."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client

from generation.errors import AbandonedByClient
from generation.models import GenerationLog
from generation.python_api import loop_thread
from tests.support.events import parse
from tests.support.problems import problem

pytestmark = pytest.mark.urls("tests.mounted.urls")
BODY = {"input": "Why?"}


@pytest.fixture
async def browser(runtime):
    """Logged in as user 2, with CSRF checks as in a browser."""
    opened = AsyncClient(enforce_csrf_checks=True)
    await opened.aforce_login(await get_user_model().objects.aget(pk=2))
    opened.cookies["csrftoken"] = "a" * 32
    return opened


async def post(client, path, body=BODY, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"/theirs/{path}/generate", body, "application/json", headers=headers)


async def test_a_session_generates_for_its_user(browser):
    answer = await post(browser, "session", X_CSRFToken="a" * 32)
    assert answer.status_code == 200, answer.content
    row = await GenerationLog.objects.select_related("body").aget()
    assert (str(row.id), row.user_id) == (answer.json()["id"], 2)
    assert row.body.prompt == "Say: Why?!"
    assert row.body.result == answer.json()["result"]


async def test_a_token_generates_for_its_user(runtime):
    answer = await post(AsyncClient(), "token", Authorization="Bearer user3")
    assert answer.status_code == 422, "user 3's template has a variable"
    body = {"variables": {"tone": "warm"}, "input": "snow"}
    answer = await post(AsyncClient(), "token", body, Authorization="Bearer user3")
    assert answer.status_code == 200
    assert (await GenerationLog.objects.aget()).user_id == 3


async def test_a_stream_ends_with_the_row_that_it_leaves(browser):
    answer = await post(browser, "session", BODY | {"stream": True}, X_CSRFToken="a" * 32)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parse(b"".join([part async for part in answer.streaming_content]))
    await sync_to_async(answer.close)()
    assert [event.kind for event in events[:1] + events[-2:]] == ["start", "usage", "done"]
    row = await GenerationLog.objects.select_related("body").aget()
    text = "".join(event.data["text"] for event in events if event.kind == "delta")
    assert (str(row.id), row.body.result) == (events[0].data["id"], text)
    assert row.is_streamed


@pytest.fixture
def slow_llm(settings):
    settings.STACCATO = {**settings.STACCATO, "LLM_SIMULATED_LATENCY": "20"}


async def test_a_stream_that_nobody_reads_is_abandoned(slow_llm, browser, runtime):
    answer = await post(browser, "session", BODY | {"stream": True}, X_CSRFToken="a" * 32)
    [call] = runtime.admission.calls.values()
    await sync_to_async(answer.close)()
    with pytest.raises(AbandonedByClient):
        await call.task
    assert (await GenerationLog.objects.aget()).status == "cancelled"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("session", {}, 403),
        ("token", {"Authorization": "Bearer nobody"}, 401),
        ("token", {}, 401),
        ("nobody", {}, 401),
    ],
    ids=["no CSRF token", "wrong token", "no token", "no auth"],
)
async def test_strangers_get_nothing(runtime, path, headers, status):
    stranger = AsyncClient(enforce_csrf_checks=True)
    assert (await post(stranger, path, **headers)).status_code == status
    assert not await GenerationLog.objects.aexists()


async def test_an_error_is_a_problem_document(runtime):
    answer = await post(AsyncClient(), "token", {"messages": []}, Authorization="Bearer user1")
    assert answer.status_code == 422
    answer = await post(AsyncClient(), "token", {"model": "x"}, Authorization="Bearer user1")
    assert problem(answer) == (422, "model-not-allowed")


async def test_a_repetition_gets_the_first_answer(runtime):
    asked = {"Authorization": "Bearer user1", "Idempotency_Key": "once"}
    first, second = [await post(AsyncClient(), "token", **asked) for _ in range(2)]
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"


def test_a_synchronous_server_serves_it_too(users):
    try:
        browser = Client()
        browser.force_login(get_user_model().objects.get(pk=1))
        answer = browser.post("/theirs/session/generate", BODY, "application/json")
        assert answer.status_code == 200, answer.content
    finally:
        loop_thread.close()
