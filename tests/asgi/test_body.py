"""The edge: what is refused before Django sees it, and that its sender learns why."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from generation.asgi.body import LARGE_BODIES_BYTES, Room
from tests.support import http
from tests.support.http import GENERATE, Wire, exchange, head
from tests.support.problems import problem
from tests.support.waiting import HANG_S

MIB = 1024 * 1024


def slug(reply) -> tuple[int, str]:
    document = json.loads(reply.body)
    assert reply.headers["content-type"] == "application/problem+json"
    assert document["status"] == reply.status
    return reply.status, document["type"].rpartition(":")[2]


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [GENERATE, "/admin/login/"])
async def test_a_body_that_says_it_is_too_large_is_refused_unread(edge, path):
    async with Wire.to(edge.port) as wire:
        await wire.send(head("Content-Length: 99999999", path=path))
        assert slug(await wire.reply()) == (413, "body-too-large")


@pytest.mark.parametrize("path", [GENERATE, "/admin/login/"])
async def test_a_body_without_end_is_refused_at_the_limit_and_its_sender_cut_off(edge, path):
    async with Wire.to(edge.port) as wire:
        await wire.send(head("Transfer-Encoding: chunked", path=path))
        sending = asyncio.create_task(wire.send_without_end(pause=0.001))
        assert slug(await wire.reply()) == (413, "body-too-large")
        assert await wire.is_closed()
        sending.cancel()
        assert (await http.request(edge.port, "GET", "/livez")).status == 200


async def test_a_body_of_just_the_limit_is_read(here):
    body = b'"' + b"x" * 1022 + b'"'
    async with here(MAX_BODY_BYTES="1024") as service:
        lengths = [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        reply = await exchange(service.port, head(*lengths) + body)
        assert slug(reply) == (422, "invalid-request")


async def test_a_limit_above_djangos_own_holds(serve):
    async with serve(STACCATO_MAX_BODY_BYTES="5000000") as service:
        for size in (2_600_000, 4_000_000):
            body = b'{"input": "%s"}' % (b"x" * size)
            reply = await exchange(service.port, head(f"Content-Length: {len(body)}") + body)
            assert reply.status == 200, size
            form = head(f"Content-Length: {size}", path="/admin/login/") + b"x" * size
            assert (await exchange(service.port, form)).status < 500, size
        assert "Traceback" not in service.log


# --- time ---------------------------------------------------------------------------------------


async def test_a_body_that_comes_too_slowly_is_refused(here):
    async with here(BODY_TIMEOUT="0.5") as service:
        for header in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
            async with Wire.to(service.port) as wire:
                await wire.send(head(header))
                drip = asyncio.create_task(wire.send_without_end(b"x", pause=0.05))
                assert slug(await wire.reply()) == (408, "body-too-slow"), header
                drip.cancel()
            assert (await service.pool())["requests_in_flight"] == 0, header


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(edge):
    async with Wire.to(edge.port) as wire:
        await wire.send(head("Content-Length: 1000") + b"half")
    await http.request(edge.port, "GET", "/livez")
    assert "ERROR" not in edge.log
    assert "Traceback" not in edge.log


# --- what all bodies share ----------------------------------------------------------------------


async def test_large_bodies_are_read_a_few_at_a_time_and_all_to_their_end(edge):
    body = b'{"input": "%s"}' % (b"x" * 900_000)
    replies = await asyncio.gather(
        *(exchange(edge.port, head(f"Content-Length: {len(body)}") + body)
          for _ in range(30))
    )  # fmt: skip
    assert {reply.status for reply in replies} == {200}


async def test_small_bodies_pass_while_large_ones_are_stuck(edge):
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(LARGE_BODIES_BYTES // MIB + 4):
            wire = await stack.enter_async_context(Wire.to(edge.port))
            await wire.send(head(f"Content-Length: {MIB}") + b"x" * 100_000)
        assert (await http.generate(edge.port, payload={"input": "small"})).status == 200


async def test_strangers_take_no_room_from_admitted_callers(edge):
    body = b'{"input": "%s"}' % (b"x" * 100_000)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(LARGE_BODIES_BYTES // MIB + 4):
            wire = await stack.enter_async_context(Wire.to(edge.port))
            await wire.send(
                head("Transfer-Encoding: chunked", path="/admin/login/") + b"1\r\nx\r\n"
            )
        reply = await exchange(edge.port, head(f"Content-Length: {len(body)}") + body)
        assert reply.status == 200


@pytest.fixture
def room() -> Room:
    return Room(10)


async def test_a_room_is_shared_first_come_first_served(room):
    await room.acquire(8)
    large, small = (asyncio.create_task(room.acquire(size)) for size in (9, 1))
    await asyncio.sleep(0)
    assert not small.done(), "else small ones could keep a large one waiting without end"
    room.release(8)
    await asyncio.gather(large, small)
    late = asyncio.create_task(room.acquire(1))
    await asyncio.sleep(0)
    assert not late.done()
    room.release(1)
    await late


async def test_one_that_stops_waiting_for_room_makes_way_and_loses_none(room):
    await room.acquire(8)
    large, small, granted = (asyncio.create_task(room.acquire(size)) for size in (9, 1, 1))
    await asyncio.sleep(0)
    large.cancel()
    await asyncio.sleep(0)
    granted.cancel()  # it has its share, but does not know yet
    await asyncio.gather(large, small, granted, return_exceptions=True)
    assert granted.cancelled()
    room.release(8)
    room.release(1)
    await asyncio.wait_for(room.acquire(10), HANG_S)


GIVES_UP_S = 2.0  # a client


async def test_strangers_bodies_take_bounded_memory(serve):
    async def send(port: int, first: bytes) -> None:
        async with Wire.to(port) as wire:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(GIVES_UP_S):
                    await wire.send(first + b"x" * 1_000_000)

    async with serve(STACCATO_BODY_TIMEOUT="3") as service:
        await exchange(service.port, head(path="/admin/login/", method="GET"))
        before = service.memory()
        for first in (
            head(f"Content-Length: {MIB}", path="/admin/login/"),
            head("Content-Length: 65536", path="/admin/login/"),
            head("Transfer-Encoding: chunked", path="/nowhere") + b"100000\r\n",
        ):
            async with asyncio.TaskGroup() as crowd:
                for _ in range(200):
                    crowd.create_task(send(service.port, first))
            assert service.memory() - before < 150 * MIB, first
            assert (await http.generate(service.port)).status == 200


# --- admission ----------------------------------------------------------------------------------


async def test_beyond_the_limit_the_refusal_comes_before_the_body_is_sent(here, llm):
    llm.release.clear()
    async with here(MAX_IN_FLIGHT="2") as service:
        admitted = [asyncio.create_task(http.generate(service.port)) for _ in range(2)]
        await llm.until(lambda: llm.waiting == 2, "two calls")
        async with Wire.to(service.port) as wire:
            await wire.send(head("Content-Length: 1000000", "Expect: 100-continue"))
            reply = await wire.reply()
            assert slug(reply) == (503, "too-many-in-flight")
            assert int(reply.headers["retry-after"]) >= 1
        llm.release.set()
        assert [answer.status for answer in await asyncio.gather(*admitted)] == [200, 200]


async def test_a_refused_sender_sees_why_and_may_go_on(here):
    """A megabyte is more than the sockets hold, so it is still being sent when it is refused."""
    body = json.dumps({"input": "x" * (MIB - 100)}).encode()
    lines = head("Content-Type: application/json", f"Content-Length: {len(body)}")
    async with here(API_KEYS_REQUIRED="1") as service:
        for last in (
            lines.replace(b"HTTP/1.1", b"HTTP/1.0"),
            lines.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        ) * 5:
            async with Wire.to(service.port) as wire:
                await wire.send(last + body)
                assert slug(await wire.answer()) == (401, "unauthorized")  # raises if it is reset
        async with Wire.to(service.port) as wire:
            for _ in range(3):
                await wire.send(head("Content-Length: 70000") + b"x" * 70_000)
                assert slug(await wire.reply()) == (401, "unauthorized")


async def test_a_client_that_is_still_sending_takes_a_place(here):
    async with here(MAX_IN_FLIGHT="1") as service:
        async with Wire.to(service.port) as slow:
            await slow.send(head("Content-Length: 2", "Expect: 100-continue"))
            await slow.reader.readuntil(b"100 Continue\r\n\r\n")  # it is being read
            assert (await http.generate(service.port)).status == 503
            await slow.send(b"{}")
            assert (await slow.reply()).status == 200
        assert (await http.generate(service.port)).status == 200


# --- head ---------------------------------------------------------------------------------------


LARGE_HEADS = [
    ("?" + "q" * 9000, [], (414, "uri-too-long")),
    ("", ["X-Large: " + "x" * 40_000], (431, "headers-too-large")),
    ("", [f"X-{number}: x" for number in range(120)], (431, "headers-too-large")),
]


async def test_a_head_that_is_too_large_is_a_problem(client, subtests):
    for path in [GENERATE, "/livez", "/admin/login/", "/nowhere"]:
        for query, headers, expected in LARGE_HEADS:
            with subtests.test(path=path, expected=expected):
                pairs = [tuple(line.split(": ")) for line in headers]
                answer = await client.request("GET", path + query, headers=pairs)
                assert problem(answer) == expected


CONTENT_TYPES = [
    (None, True),
    ("application/json", True),
    ("Application/JSON; charset=UTF-8", True),
    ("application/problem+json", True),
    ("application/x-www-form-urlencoded", True),  # what curl -d says
    ("text/plain", False),
    ("multipart/form-data; boundary=x", False),
    ("application/json; charset=latin-1", False),
    ("application/xml", False),
    ("\xff", False),
]


async def test_a_body_is_json_whatever_curl_calls_it(client, subtests):
    for content_type, fits in CONTENT_TYPES:
        with subtests.test(content_type=content_type, fits=fits):
            headers = (
                {} if content_type is None else {"Content-Type": content_type.encode("latin1")}
            )
            answer = await client.post(GENERATE, content=b'{"input": "x"}', headers=headers)
            if fits:
                assert answer.status_code == 200
            else:
                assert problem(answer) == (415, "unsupported-media-type")
            empty = await client.post(GENERATE, headers=headers)
            assert empty.status_code == 200, "an empty body may call itself anything"


async def test_a_compressed_body_is_not_unpacked(client):
    headers = {"Content-Encoding": "gzip"}
    answer = await client.post(GENERATE, content=b"\x1f\x8b", headers=headers)
    assert problem(answer) == (415, "unsupported-media-type")


async def test_a_form_is_not_taken_for_json(client):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.post(GENERATE, content=b"input=x", headers=headers)
    assert problem(answer) == (400, "malformed-body")


async def test_a_refusal_of_another_method_names_the_right_one(client, subtests):
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"]:
        with subtests.test(method=method):
            answer = await client.request(method, GENERATE)
            assert problem(answer) == (405, "method-not-allowed")
            assert answer.headers["allow"] == "POST"


VARIABLES = [
    ("many", {"variables": {str(number): "x" for number in range(101)}}, (422, "invalid-request")),
    ("long", {"variables": {"n" * 101: "x"}}, (422, "invalid-request")),
    ("fits", {"variables": {str(number): "x" for number in range(100)}}, None),
]


async def test_variables_are_bounded(client, subtests):
    for kind, body, expected in VARIABLES:
        with subtests.test(kind):
            answer = await client.post(GENERATE, json=body)
            assert answer.status_code == 200 if expected is None else problem(answer) == expected


async def test_nothing_of_a_request_is_echoed_into_a_header(edge):
    for value in ("a\rSet-Cookie: x=1", "a\x0bb", "a\x7fb", "é", "x" * 129):
        reply = await exchange(edge.port, head(f"X-Request-ID: {value}"))
        assert reply.status in {200, 400}
        assert "set-cookie" not in reply.headers
        assert reply.headers.get("x-request-id", "") != value


async def test_a_websocket_is_turned_away_without_a_traceback(edge):
    upgrade = (
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    for path in (GENERATE, "/", "/admin/"):
        reply = await exchange(edge.port, head(*upgrade, path=path, method="GET"))
        assert reply.status < 500
    assert "Traceback" not in edge.log
