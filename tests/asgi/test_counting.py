"""`staccato_requests_total` is the total: each request to generate is counted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from generation import conf
from generation.asgi import get_service
from generation.asgi.application import Application
from generation.asgi.body import BodyLimits
from generation.asgi.bounded_pages import BoundedPages
from generation.errors import LLMRefused
from generation.runtime.process import Runtime
from generation.telemetry.metrics import CLIENT_LEFT, SUCCEEDED
from tests.support.in_process import counted, serve

CHUNKED = (b"transfer-encoding", b"chunked")
# What is sent, its status, its outcome.
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"body": b"{"}, 400, "malformed-body"),
    ({"headers": [(b"idempotency-key", b"a b")]}, 400, "idempotency-key-invalid"),
    ({"headers": [(b"content-type", b"application/json; charset=a\x00")]}, 400, "bad-request"),
    ({"headers": [(b"x-api-key", b"no key")]}, 401, "unauthorized"),
    ({"headers": [(b"sec-fetch-site", b"cross-site")]}, 403, "cross-site"),
    ({"path": "/api/v1/generate/99"}, 404, "unknown-user"),
    ({"method": "GET"}, 405, "method-not-allowed"),
    ({"body": None, "headers": [CHUNKED]}, 408, "body-too-slow"),
    ({"body": b" " * 2000}, 413, "body-too-large"),
    ({"query": "q" * 9000}, 414, "uri-too-long"),
    ({"path": "/api/v1/generate/" + "1" * 9000}, 414, "uri-too-long"),
    ({"body": b"x", "headers": [(b"content-type", b"text/plain")]}, 415, "unsupported-media-type"),
    ({"headers": [(b"content-type", b"x" * 600)]}, 415, "unsupported-media-type"),
    ({"body": b'{"input": 3}'}, 422, "invalid-request"),
    ({"path": "/api/v1/generate/3"}, 422, "missing-variable"),
    ({"headers": [(b"x-large", b"x" * 40_000)]}, 431, "headers-too-large"),
]  # fmt: skip


@pytest.fixture
def application(settings):
    values = {**settings.STACCATO, "BODY_TIMEOUT": 0.2, "MAX_BODY_BYTES": 1024}
    limits = BodyLimits(conf.parse(values))
    return Application(Runtime.open, limits, 1.0, BoundedPages(limits))


async def test_each_kind_of_request_is_counted_once_and_they_add_up(
    runtime, application, monkeypatch
):
    before, expected = counted(), Counter()
    for sent, status, outcome in REFUSED:
        assert await serve(application, **sent) == status, outcome
        expected[outcome] += 1
    assert await serve(application) == 200
    expected[SUCCEEDED] += 1

    monkeypatch.setattr(runtime.admission, "limit", 0)
    assert await serve(application) == 503
    expected["too-many-in-flight"] += 1
    monkeypatch.setattr(runtime.admission, "draining", True)
    assert await serve(application) == 503
    expected["draining"] += 1
    monkeypatch.undo()

    async def refuse(*_args, **_kwargs):
        raise LLMRefused("it declines")

    monkeypatch.setattr(runtime.llm._upstreams["simulated"].provider, "ask", refuse)
    assert await serve(application) == 422
    expected["llm-refused"] += 1
    monkeypatch.setattr(runtime.pipeline, "_build_prompt", None)  # a bug
    assert await serve(application) == 500
    expected["internal-error"] += 1

    assert counted() - before == expected
    assert sum(counted().values()) - sum(before.values()) == len(REFUSED) + 5


@pytest.mark.parametrize("policy", ["cancel", "finish"])
async def test_a_client_that_leaves_is_counted_once_whatever_becomes_of_its_generation(
    runtime, application, monkeypatch, policy
):
    monkeypatch.setattr(
        runtime, "settings", runtime.settings.model_copy(update={"on_disconnect": policy})
    )
    before, gone, finish = counted(), asyncio.Event(), asyncio.Event()
    provider = runtime.llm._upstreams["simulated"].provider
    ask = provider.ask

    async def leave(*args, **kwargs):
        gone.set()
        await finish.wait()
        return await ask(*args, **kwargs)

    monkeypatch.setattr(provider, "ask", leave)
    assert await serve(application, leaves=gone) is None
    finish.set()
    await asyncio.gather(
        *(call.task for call in runtime.admission.calls.values()), return_exceptions=True
    )
    assert counted() - before == Counter({CLIENT_LEFT: 1})


async def test_a_client_that_leaves_before_its_body_is_read_is_counted(runtime, application):
    before, gone = counted(), asyncio.Event()
    gone.set()
    sent = serve(application, body=None, headers=[CHUNKED], leaves=gone)
    assert await sent is None
    assert counted() - before == Counter({CLIENT_LEFT: 1})
    assert runtime.admission._entered == 0


async def test_no_other_address_is_counted(runtime):
    application, before = get_service(), counted()
    for path in ("/livez", "/readyz", "/metrics", "/api/v1/pool", "/api/v1/nowhere", "/nowhere"):
        await serve(application, method="GET", path=path)
    assert counted() == before
