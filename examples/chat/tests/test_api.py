"""Staccato's router and its DRF view, with the project's own logins and CORS headers."""

import json
from base64 import b64encode

import pytest
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client

from generation.models import GenerationLog
from generation.testing import QueuedLLM
from people.models import User

ORIGIN = "https://app.example.com"
SAID = {"messages": [{"role": "user", "content": "Why?"}]}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


def test_the_router_generates_for_the_sessions_user(
    browser: Client, ada: User, staccato_llm: QueuedLLM
) -> None:
    response = browser.post("/api/v1/llm/generate", SAID, "application/json")
    assert response.status_code == 200, response.content
    assert response.json()["result"] == "An answer."
    assert GenerationLog.objects.get().user_id == ada.pk


def test_a_stranger_gets_nothing(client: Client, db: None, staccato_llm: QueuedLLM) -> None:
    response = client.post("/api/v1/llm/generate", SAID, "application/json")
    assert response.status_code == 401
    assert not GenerationLog.objects.exists()


def test_a_page_of_an_allowed_origin_may_ask(browser: Client, staccato_llm: QueuedLLM) -> None:
    asks = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-csrftoken",
    }
    preflight = browser.options("/api/v1/llm/generate", headers=asks)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "x-csrftoken" in preflight.headers["Access-Control-Allow-Headers"]
    answer = browser.post(
        "/api/v1/llm/generate", SAID, "application/json", headers={"Origin": ORIGIN}
    )
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"


def test_a_page_of_another_origin_may_not(browser: Client) -> None:
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = browser.options("/api/v1/llm/generate", headers=asks)
    assert "Access-Control-Allow-Origin" not in preflight.headers


@pytest.mark.urls("tests.drf_urls")
def test_the_drf_view_generates_for_the_user_that_drf_finds(
    client: Client, ada: User, staccato_llm: QueuedLLM
) -> None:
    response = client.post(
        "/api/generate", SAID, "application/json", headers=basic("ada", "her own")
    )
    assert response.status_code == 200, response.content
    assert response.json()["result"] == "An answer."
    assert GenerationLog.objects.get().user_id == ada.pk


@pytest.mark.urls("tests.drf_urls")
def test_the_drf_view_streams(client: Client, ada: User, staccato_llm: QueuedLLM) -> None:
    staccato_llm.answers("in three words")
    response = client.post(
        "/api/generate", {**SAID, "stream": True}, "application/json",
        headers=basic("ada", "her own"),
    )  # fmt: skip
    assert isinstance(response, StreamingHttpResponse)
    events = response.getvalue().decode()
    response.close()
    assert [line for line in events.splitlines() if line.startswith("event: ")] == [
        "event: start",
        *["event: delta"] * 3,
        "event: usage",
        "event: done",
    ]


@pytest.mark.urls("tests.drf_urls")
async def test_the_drf_view_streams_under_asgi(
    async_client: AsyncClient, eve: User, staccato_llm: QueuedLLM
) -> None:
    response = await async_client.post(
        "/api/generate", {**SAID, "stream": True}, "application/json",
        headers=basic("eve", "her own"),
    )  # fmt: skip
    assert isinstance(response, StreamingHttpResponse)
    assert response.is_async
    assert b"event: done" in b"".join([part async for part in response.streaming_content])


@pytest.mark.urls("tests.drf_urls")
def test_the_drf_view_refuses_as_the_native_api_does(
    client: Client, ada: User, staccato_llm: QueuedLLM
) -> None:
    wrong = client.post("/api/generate", SAID, "application/json", headers=basic("ada", "wrong"))
    assert wrong.status_code == 401
    bad = client.post(
        "/api/generate", {"messages": "x"}, "application/json", headers=basic("ada", "her own")
    )
    assert bad.status_code == 422
    assert json.loads(bad.content)["type"] == "urn:staccato:problem:invalid-request"
    assert staccato_llm.prompts == []
