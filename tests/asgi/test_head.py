"""Headers that decide who is served, and what, come once; host names are known ones."""

from __future__ import annotations

import logging

import pytest

from generation.asgi.head import MAX_LENGTH_DIGITS, SINGLE_HEADERS, Head
from tests.support.http import GENERATE, exchange, head
from tests.support.problems import problem

PAGES = [GENERATE, "/metrics", "/api/v1/pool", "/readyz", "/admin/login/", "/nowhere"]
FRAMING = {b"content-length", b"host"}  # the test's client has opinions of its own


def make_head(**headers: str) -> Head:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Head({"path": "/", "headers": pairs})


async def test_two_authorizations_are_refused_everywhere(client, subtests):
    for path in PAGES:
        with subtests.test(path=path):
            pairs = [("Authorization", "Bearer one"), ("Authorization", "Basic dHdv")]
            answer = await client.request(
                "POST" if path == GENERATE else "GET", path, headers=pairs
            )
            assert problem(answer) == (400, "bad-request")
            assert answer.json()["detail"] == "the request has more than one Authorization header"


async def test_each_header_that_decides_comes_once(client, subtests):
    for name in sorted(SINGLE_HEADERS - FRAMING):
        with subtests.test(name=name):
            pairs = [(name, b"a"), (name.upper(), b"a")]
            assert problem(await client.post(GENERATE, headers=pairs)) == (400, "bad-request")


async def test_two_hosts_are_refused(edge):
    assert (await exchange(edge.port, head("Host: localhost"))).status == 400


async def test_other_headers_may_come_twice(client):
    pairs = [("Accept", "*/*"), ("Accept", "x/y"), ("X-Forwarded-For", "a"), ("Cookie", "a=b")]
    assert (await client.post(GENERATE, headers=[*pairs, *pairs])).status_code == 200


@pytest.mark.parametrize("digits", range(1, 40))
def test_a_length_of_any_number_of_digits_means_a_body(digits):
    head = make_head(content_length="9" * digits)
    assert head.has_body
    assert head.length == (int("9" * digits) if digits <= MAX_LENGTH_DIGITS else None)


def test_only_a_length_of_zero_or_none_at_all_means_no_body():
    assert not make_head().has_body
    assert not make_head(content_length="0").has_body
    assert make_head(transfer_encoding="chunked").has_body
    unclear = make_head(transfer_encoding="chunked", content_length="0")
    assert unclear.has_body
    assert unclear.length is None


@pytest.mark.parametrize("path", [GENERATE, "/admin/login/"])
@pytest.mark.parametrize("digits", [8, 15, 16, 17, 18, 19])
async def test_a_length_beyond_the_limit_is_refused_unread(edge, path, digits):
    reply = await exchange(edge.port, head(f"Content-Length: {'9' * digits}", path=path))
    assert reply.status == 413


async def test_foreign_hosts_are_refused_with_few_short_lines(serve):
    hosts = ["evil.example", "x" * 3_000, "a b", "[::1", "evil\xff", "%0a", "-", "1.2.3.4:x"]
    async with serve(DEBUG="0", SECRET_KEY="s" * 60, ALLOWED_HOSTS="localhost",
                     SECURE_SSL_REDIRECT="0", LLM_API_KEYS="") as service:  # fmt: skip
        before = len(service.log)
        for host in hosts * 5:
            request = f"GET /admin/login/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin1")
            assert (await exchange(service.port, request)).status == 400
        await service.until_logged("evil.example")
        said = service.log[before:]
        assert "ALLOWED_HOSTS" in said
        assert "evil.example" in said
        assert len(said) < 1_000, said
        known = await exchange(service.port, head(path="/admin/login/", method="GET"))
        assert known.status == 200


async def test_a_foreign_host_is_reported_with_the_count_since_the_last_report(
    client, caplog, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr("generation.asgi.handlers.monotonic", lambda: now[0])
    caplog.set_level(logging.WARNING)
    for later in (0, 1, 1, 20):
        now[0] += later
        answer = await client.get("/admin/login/", headers={"Host": "evil.example"})
        assert answer.status_code == 400
    lines = [record.getMessage() for record in caplog.records if "ALLOWED_HOSTS" in record.message]
    assert [line.split()[0] for line in lines] == ["1", "3"]
