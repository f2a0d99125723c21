"""What the server itself must bound or drop, over a raw socket."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from generation.asgi.uvicorn_limits import MAX_UNPARSED_BYTES
from tests.support.http import GENERATE, Answer, Wire, head
from tests.support.problems import PROBLEM

MIB = 1024 * 1024
START = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = head("Transfer-Encoding: chunked")
ENDLESS_HEADS = {
    "one header": (START + b"X-Large: ", b"x" * 65_536),
    "a header's name": (START, b"x" * 65_536),
    "many headers": (START, b"X-Small: x\r\n" * 5_000),
    "target": (b"GET /", b"x" * 65_536),
    "method": (b"", b"G" * 65_536),
    "empty lines": (b"", b"\r\n" * 32_768),
}
ENDLESS_FRAMING = {
    "one trailer": (CHUNKED + b"0\r\nX-Large: ", b"x" * 65_536),
    "many trailers": (CHUNKED + b"0\r\n", b"X-Small: x\r\n" * 5_000),
    "chunk extension": (CHUNKED + b"2;", b"x" * 65_536),
}


async def send_until_cut_off(wire: Wire, first: bytes, chunk: bytes, limit: int) -> int:
    """Returns how many bytes were taken, at most the limit."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        await wire.send(first)
        while sent < limit:
            await wire.send(chunk)
            sent += len(chunk)
            await asyncio.sleep(0)
    return sent


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_head_without_end_is_refused_before_it_ends(serve, loop):
    async with serve("--loop", loop) as service:
        for kind, (first, chunk) in ENDLESS_HEADS.items():
            async with Wire.to(service.port) as wire:
                sending = asyncio.create_task(send_until_cut_off(wire, first, chunk, 8 * MIB))
                reply = await wire.reply()
                assert reply.status in {400, 431}, kind
                name = "headers-too-large" if reply.status == 431 else "bad-request"
                assert reply.headers["content-type"] == PROBLEM
                assert reply.json()["type"] == f"urn:staccato:problem:{name}"
                assert await wire.is_closed(), kind
                await sending
        assert "Traceback" not in service.log


async def test_framing_without_end_is_cut_off(edge):
    for kind, (first, chunk) in ENDLESS_FRAMING.items():
        async with Wire.to(edge.port) as wire:
            sent = await send_until_cut_off(wire, first, chunk, 32 * MIB)
            assert sent < 32 * MIB, kind
            assert (await edge.pool())["requests_in_flight"] == 0
    assert "Traceback" not in edge.log


async def test_a_head_without_end_after_a_request_is_cut_off(serve, llm):
    async with serve() as service, Wire.to(service.port) as wire:
        llm.release.clear()
        await wire.send(head("Content-Length: 2") + b"{}")
        await llm.until(lambda: llm.waiting == 1, "a call")
        sent = await send_until_cut_off(wire, START + b"X: ", b"x" * 65_536, 32 * MIB)
        assert sent < 32 * MIB
        llm.release.set()


async def test_a_large_body_in_the_smallest_chunks_is_no_head(edge):
    body = b'{"input": "%s"}' % (b"x" * MAX_UNPARSED_BYTES)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    async with Wire.to(edge.port) as wire:
        await wire.send(head("Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
        assert (await wire.reply()).status == 200


async def test_many_requests_on_one_connection_do_not_add_up(edge):
    async with Wire.to(edge.port) as wire:
        for _ in range(20):
            await wire.send(head("X-Large: " + "x" * 30_000, path="/livez", method="GET"))
            assert (await wire.reply()).status == 200


async def test_trailers_are_no_headers(edge):
    trailers = b"X-Request-ID: trailer\r\nX-API-Key: none\r\nX-Forwarded-For: 192.0.2.1\r\n"
    async with Wire.to(edge.port) as wire:
        await wire.send(CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
        reply = await wire.reply()
        assert reply.status == 200, "a key that does not exist would be refused"
        assert reply.headers["x-request-id"] != "trailer"


# --- a client that closes its sending side --------------------------------------------------------


async def final(wire: Wire) -> Answer:
    """The response after any "100 Continue"."""
    while (reply := await wire.reply()).status == 100:
        pass
    return reply


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_client_that_has_sent_all_and_waits_gets_its_answer(serve, llm, loop):
    requests = {
        GENERATE: head("Content-Length: 2") + b"{}",
        "/livez": head(path="/livez", method="GET"),
        "/admin/login/": head(path="/admin/login/", method="GET"),
    }
    async with serve("--loop", loop) as service:
        for path, request in requests.items():
            async with Wire.to(service.port) as wire:
                llm.release.clear()
                await wire.send(request)
                wire.writer.write_eof()
                if path == GENERATE:
                    await llm.until(lambda: llm.waiting == 1, "a call")
                    await asyncio.sleep(0.3)  # past the first looks whether it is there
                llm.release.set()
                assert (await final(wire)).status == 200, path
                assert await wire.is_closed(), path


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_client_that_closes_its_connection_is_noticed_at_once(serve, llm, loop):
    llm.release.clear()
    async with serve("--loop", loop) as service:
        async with Wire.to(service.port) as wire:
            await wire.send(head("Content-Length: 2") + b"{}")
            await llm.until(lambda: llm.waiting == 1, "a call")
        await llm.until(lambda: llm.hung_up == 1, "the call's end")
        await service.until_pool(lambda pool: pool["requests_in_flight"] == 0, "no request")


async def test_half_a_body_gets_no_answer(edge):
    async with Wire.to(edge.port) as wire:
        await wire.send(head("Content-Length: 20") + b"{}")
        wire.writer.write_eof()
        assert await wire.is_closed()
