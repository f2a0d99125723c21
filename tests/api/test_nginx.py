"""nginx in front, with nothing in its configuration but `proxy_pass`: it holds nothing back."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import nginx
from tests.support.dialects import AnthropicDialect
from tests.support.http import head
from tests.support.provider import streams
from tests.support.waiting import HANG_S

BODY = b'{"stream": true}'
REQUEST = ("Content-Type: application/json", f"Content-Length: {len(BODY)}", "Connection: close")


async def test_the_first_word_passes_nginx_before_the_provider_has_a_second(serve, llm):
    more = asyncio.Event()
    begin, block, first, second, *end = AnthropicDialect().stream("First", "Second")
    llm.behave = streams(begin, block, first, more, second, *end)
    async with serve() as service, nginx.before(service.port) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(head(*REQUEST) + BODY)
        answer = b""
        async with asyncio.timeout(HANG_S):
            while b"First" not in answer:
                answer += await reader.read(65_536)
        assert b"event: delta" in answer
        assert b"Second" not in answer
        assert not more.is_set(), "the provider still waits with its second word"
        more.set()
        async with asyncio.timeout(HANG_S):
            answer += await reader.read()
        writer.close()
    assert b"Second" in answer
    assert b"event: done" in answer
    assert b"x-accel-buffering" not in answer.lower(), "nginx takes the hint for itself"


async def test_a_tear_passes_nginx_as_a_tear(serve, llm):
    """A client takes a clean end for the end of the answer."""
    begin, block, first, *_ = AnthropicDialect().stream("First")
    llm.behave = streams(begin, block, first, asyncio.Event())
    async with serve() as service, nginx.before(service.port) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(head("Content-Type: application/json", f"Content-Length: {len(BODY)}") + BODY)
        answer = b""
        async with asyncio.timeout(HANG_S):
            while b"First" not in answer:
                answer += await reader.read(65_536)
        service.process.kill()
        async with asyncio.timeout(HANG_S):
            answer += await reader.read()
        writer.close()
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"event: done" not in answer


pytestmark = pytest.mark.served
