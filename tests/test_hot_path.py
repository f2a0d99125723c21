"""What the hot path must not do: enter a thread, open a Django connection, run middleware."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db.backends.signals import connection_created
from django.test import AsyncRequestFactory
from django.urls import resolve


@pytest.fixture
def thread_entries(monkeypatch) -> list[str]:
    """What is handed to any thread pool; asgiref's executors are such pools."""
    entries: list[str] = []
    submit = ThreadPoolExecutor.submit

    def record(self, function, *args, **kwargs):
        entries.append(repr(function))
        return submit(self, function, *args, **kwargs)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", record)
    return entries


@pytest.fixture
def django_connections():
    opened: list[object] = []

    def record(connection, **_kwargs):
        opened.append(connection)

    connection_created.connect(record)
    yield opened
    connection_created.disconnect(record)


async def test_a_generate_call_enters_no_thread_and_opens_no_django_connection(
    client, thread_entries, django_connections
):
    await client.post("/api/v1/generate/1")  # whatever is lazy is done now
    thread_entries.clear()
    django_connections.clear()
    answer = await client.post("/api/v1/generate/2", json={"input": "hello"})
    assert answer.status_code == 200, answer.text
    assert thread_entries == [], "the hot path hopped to a thread"
    assert django_connections == [], "the hot path opened a connection of the Django ORM"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/api/v1/pool", "/metrics", "/api/v1/nope"])
async def test_the_operators_pages_enter_no_thread(client, thread_entries, path):
    await client.get(path)
    thread_entries.clear()
    await client.get(path)
    assert thread_entries == []


async def test_other_pages_keep_the_full_middleware(client, thread_entries):
    answer = await client.get("/admin/login/")
    assert answer.status_code == 200
    assert "csrftoken" in answer.cookies
    assert answer.headers["x-frame-options"] == "DENY"
    assert thread_entries, "this test could not see a thread hop if there were one"


async def test_the_view_can_live_in_a_project_with_atomic_requests(runtime):
    match = resolve("/api/v1/generate/1")
    assert match.func._non_atomic_requests == {"default"}
    request = AsyncRequestFactory().post("/api/v1/generate/1", content_type="application/json")
    response = await match.func(request, *match.args, **match.kwargs)
    assert response.status_code == 200


async def test_many_callers_share_their_statements(client, runtime):
    holds = runtime.database.pool.holds
    before = holds.count
    answers = await asyncio.gather(*(client.post("/api/v1/generate/1") for _ in range(300)))
    assert {answer.status_code for answer in answers} == {200}
    statements = holds.count - before
    assert statements < 150, f"300 requests took {statements} borrowings: nothing was batched"
