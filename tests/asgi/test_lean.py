"""Lean routes: their errors' shape, their arrival, and what serves them elsewhere."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from django.http import JsonResponse
from django.test import AsyncRequestFactory
from django.urls import resolve

from generation.api import health
from generation.asgi import lean
from generation.models import GenerationLog

GENERATE = "/api/v1/generate/1"
BODY_S = 0.2


def render_dialect(error):
    return JsonResponse(
        {"error": {"code": error.slug, "message": error.detail}},
        status=error.status,
        headers=error.headers,
    )


@pytest.fixture
def dialect(monkeypatch) -> None:
    """The generate route, with errors in another API's shape."""
    view = resolve(GENERATE).func
    route = replace(lean.find_route(view), errors=render_dialect)
    monkeypatch.setitem(lean._routes, view, route)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X-API-Key": "no key"}, 401, "unauthorized"),
        ({"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        ({"Content-Length": "99999999"}, 413, "body-too-large"),
        ({"X-Large": "x" * 40_000}, 431, "headers-too-large"),
    ],
)
async def test_a_refusal_at_the_entrance_has_the_dialects_shape(
    client, dialect, headers, status, code
):
    answer = await client.post(GENERATE, content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("method", "body", "status", "code"),
    [
        ("POST", b"{", 400, "malformed-body"),
        ("POST", b'{"input": 3}', 422, "invalid-request"),
        ("GET", b"", 405, "method-not-allowed"),
    ],
)
async def test_a_refusal_after_the_body_has_it_too(client, dialect, method, body, status, code):
    answer = await client.request(method, GENERATE, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_request_arrives_with_its_head_and_not_with_its_body(client):
    async def slow():
        yield b"{"
        await asyncio.sleep(BODY_S)
        yield b"}"

    answer = await client.post(GENERATE, content=slow())
    row = await GenerationLog.objects.aget()
    assert answer.json()["latency_ms"] == row.latency_ms >= BODY_S * 1000


async def test_another_handler_gets_a_lean_views_errors_as_problems(users):
    request = AsyncRequestFactory().get("/readyz")
    response = await health.readyz(request)
    assert response.status_code == 500
    assert json.loads(response.content)["type"].endswith("runtime-not-open")


def test_a_view_of_djangos_is_not_lean():
    assert lean.find_route(resolve("/admin/login/").func) is None
