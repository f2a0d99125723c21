"""A key of ours, whatever its provider does with it, is in no row, answer, metric or log line."""

from __future__ import annotations

import pytest

from tests.support import http
from tests.support.dialects import DIALECTS, KEY
from tests.support.provider import Provider, resets, says, sends


def misdeeds(dialect):
    """Each quotes the key, where it says anything."""
    for status in (301, 400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 503, 529):
        yield says(status, dialect.error("caller", f"key {KEY}"), x_key=KEY, location=f"/{KEY}")
    for kind in ("overloaded", "caller", "limited", "key", "other"):
        yield says(200, dialect.error(kind, f"key {KEY}"))
    yield says(200, KEY.encode())
    yield says(200, dialect.answer(model=KEY * 20))
    yield says(200, dialect.answer(stop=f"{KEY}\n"))
    yield says(200, dialect.error("other", f"key {KEY}") | {"usage": {}})
    yield says(200, dialect.refusal() | {"x": KEY})
    yield sends(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"' + KEY[:-2].encode())
    yield sends(f"HTTP/1.1 {KEY}\r\n\r\n".encode())
    yield resets


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
async def test_a_key_is_nowhere_after_every_error(serve, sql, dialect):
    async with Provider(says(200, b"")).serve() as provider:
        env = dialect.settings(provider.url, LLM_MAX_ATTEMPTS="1", LOG_LEVEL="DEBUG")
        async with serve(**{"LLM_PROVIDER": dialect.name, **env}) as service:
            shown = []
            for behaviour in misdeeds(dialect):
                provider.behave = behaviour
                answer = await http.generate(service.port)
                shown.append(str(answer.headers) + answer.body.decode())
            asked = len(provider.requests)
            rows = await sql.fetch(
                "SELECT log::text || body::text FROM generation_generationlog AS log"
                " JOIN generation_generationbody AS body USING (id)"
            )
            shown += [row[0] for row in rows]
            shown.append((await http.request(service.port, "GET", "/metrics")).body.decode())
            shown.append((await http.request(service.port, "GET", "/api/v1/pool")).body.decode())
            shown.append(service.log)
    assert asked >= 20, "the circuit opened, so not every error was forced"
    assert len(rows) >= asked
    for text in shown:
        for part in (KEY, KEY[:10], KEY[-8:]):
            assert part not in text
