"""STACCATO_SERVE: a process for callers has no pages, and one for pages no callers."""

from __future__ import annotations

import pytest

from tests.support.in_process import in_process_client
from tests.support.problems import problem

CALLERS = [
    ("POST", "/api/v1/generate/1"),
    ("GET", "/api/v1/limits"),
    ("GET", "/api/v1/generations/01a22019-e79e-776b-8e77-704972468776"),
]
SDKS = [("POST", "/v1/chat/completions"), ("POST", "/v1/messages"), ("GET", "/v1/models")]
PAGES = ["/", "/admin/login/", "/api/v1/live", "/api/v1/docs"]
BOTH = ["/livez", "/readyz", "/metrics", "/api/v1/pool", "/api/v1/pool/history"]


@pytest.fixture
def served(runtime, settings):
    """`async with served("api") as client:` a process that serves that."""

    def serve(part: str):
        settings.STACCATO = {**settings.STACCATO, "SERVE": part}
        return in_process_client()

    return serve


REPLAY = "/api/v1/generations/01a22019-e79e-776b-8e77-704972468776/replay"


async def test_what_operators_send_again_belongs_to_the_pages(served):
    async with served("pages") as client:
        assert (await client.post(REPLAY)).status_code == 403, "it asks for a session"
    async with served("api") as client:
        answer = await client.post(REPLAY)
    assert (answer.status_code, "API only" in answer.text) == (404, True)


async def test_a_process_for_pages_serves_no_callers(served, runtime, subtests):
    async with served("pages") as client:
        for path in (*PAGES, *BOTH):
            with subtests.test(path=path):
                assert (await client.get(path)).status_code == 200
        for method, path in CALLERS:
            with subtests.test(path=path):
                answer = await client.request(method, path, content=b"{}" * (method == "POST"))
                assert problem(answer) == (404, "not-found")
                assert "pages only" in answer.json()["detail"]
        for method, path in SDKS:
            with subtests.test(path=path):
                answer = await client.request(method, path, content=b"{}" * (method == "POST"))
                assert answer.status_code == 404
                assert "pages only" in answer.json()["error"]["message"], "in the dialect's shape"
    assert runtime.snapshot().peak_requests_in_flight == 0


async def test_a_process_for_callers_serves_no_pages(served, thread_entries, subtests):
    async with served("api") as client:
        for path in BOTH:
            with subtests.test(path=path):
                assert (await client.get(path)).status_code == 200
        assert (await client.post("/api/v1/generate/1")).status_code == 200
        thread_entries.clear()
        for path in PAGES:
            with subtests.test(path=path):
                answer = await client.get(path)
                assert problem(answer) == (404, "not-found")
                assert "API only" in answer.json()["detail"]
        assert thread_entries == []
