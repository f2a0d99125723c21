"""What the hot path must not do: enter a thread, open a Django connection, leave cycles."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from django.test import AsyncRequestFactory
from django.urls import resolve

from generation.asgi import get_service
from generation.errors import LLMRefused
from generation.runtime import collector
from generation.telemetry import metrics


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


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/api/v1/pool", "/api/v1/pool/history", "/metrics", "/api/v1/nope"],
)
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
    view: Any = match.func
    assert view._non_atomic_requests == {"default"}
    request = AsyncRequestFactory().post("/api/v1/generate/1", content_type="application/json")
    response = await view(request, *match.args, **match.kwargs)
    assert b"runtime-not-open" in response.content, "only our own handlers know its entrance"


async def test_many_callers_share_their_statements(client, runtime):
    holds = runtime.database.pool.holds
    before = holds.count
    answers = await asyncio.gather(*(client.post("/api/v1/generate/1") for _ in range(300)))
    assert {answer.status_code for answer in answers} == {200}
    statements = holds.count - before
    assert statements < 150, f"300 requests took {statements} borrowings: nothing was batched"


# --- memory -----------------------------------------------------------------------------------


async def call(application, path: str, body: bytes, *, leaves: bool) -> None:
    """One request without a client around it, whose own objects would be counted."""
    length = str(len(body)).encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"localhost"), (b"content-length", length)],
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    request = [{"type": "http.request", "body": body, "more_body": False}]
    if leaves:
        request.append({"type": "http.disconnect"})
    for_ever = asyncio.Event()

    async def receive():
        return request.pop(0) if request else await for_ever.wait()

    async def send(_message) -> None:
        pass

    await application(scope, receive, send)


@pytest.mark.parametrize(
    ("user", "body", "leaves", "outcome"),
    [
        (1, b"{}", False, "succeeded"),
        (1, b'{"input": "x"}', True, metrics.CLIENT_LEFT),
        (99, b"", False, "unknown-user"),
        (1, b'{"input": 3}', False, "invalid-request"),
        (3, b"{}", False, "missing-variable"),
        (1, b"{", False, "malformed-body"),
        (1, b" " * 2_000_000, False, "body-too-large"),
        (1, b"{}", False, "llm-refused"),
    ],
)
async def test_no_request_leaves_a_cycle_whatever_becomes_of_it(
    runtime, monkeypatch, user, body, leaves, outcome
):
    """The cyclic garbage collector runs rarely, so what it alone could free would pile up."""

    async def ask(*_):
        if leaves:
            await asyncio.Event().wait()
        raise LLMRefused("it declines")

    if leaves or outcome == "llm-refused":
        monkeypatch.setattr(runtime.llm._upstreams["simulated"].provider, "ask", ask)
    application = get_service()
    counter = metrics.REQUESTS.labels(outcome)

    async def several(number: int) -> None:
        for _ in range(number):
            await call(application, f"/api/v1/generate/{user}", body, leaves=leaves)
        await asyncio.gather(
            *(each.task for each in runtime.admission.calls.values()), return_exceptions=True
        )

    await several(5)  # what is loaded or kept once
    gc.collect()
    gc.freeze()  # what is there already costs half a second to look through, so it stays frozen
    before = counter._value.get()
    gc.disable()
    try:
        await several(30)
        found = gc.collect()
    finally:
        gc.enable()
    assert found < 30, f"{found / 30:.0f} objects of each request wait for the collector"
    assert counter._value.get() == before + 30


async def test_while_serving_the_garbage_collector_runs_rarely(runtime):
    before = gc.get_threshold()
    with collector.rare_collections():
        assert gc.get_threshold()[0] == collector.COLLECT_AFTER > before[0]
    assert gc.get_threshold() == before
    gc.freeze()  # again, as conftest.py has done
