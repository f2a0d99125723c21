"""Hostile bytes over a raw socket: no 5xx, no traceback, no memory that stays."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tests.support import http, service
from tests.support.http import GENERATE, Wire, exchange, head
from tests.support.keys import amake_key
from tests.support.service import PRODUCTION

AT_ONCE = 200
MORE_MEMORY = AT_ONCE * 1024 * 1024 / 2  # half of what the largest bodies would take together

TEXTS = [
    "", "\x00", "a\x00b", "\x7f", "\r\n", "\r\nSet-Cookie: a=b", "\u2028", "\ufeff", "\uffff",
    "\U0010ffff", "\\ud800", "\\udfff\\ud800", "\\u0000", "$", "$$", "$input", "${", "${input",
    "%s%n", "{{7*7}}", "';--", "<script>", "x" * 70_000, "é" * 1000, "../../etc/passwd",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-1", "1e400", "-1e400", "1e-400", "0.1", "2147483648", "9223372036854775807",
    "9223372036854775808", "9" * 5000, "NaN", "Infinity", "0x10", "01", "1.", "+1",
]  # fmt: skip
SHAPES = [
    "null", "true", "[]", "{}", "[[]]", "[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900,
    '{"input":' + "[" * 1000 + "]" * 1000 + "}", '"', "{", "}", ",", "\x00", "\ufeff{}", "{}{}",
    '{"input":"a","input":"b"}', '{"__proto__":{}}', "/**/{}", " \t\n", "{}\n",
]  # fmt: skip
FIELDS = ["input", "variables", "provider", "model", "max_tokens", "unknown"]


def bodies() -> list[bytes]:
    """Each field with each value, hostile ones foremost."""
    values = [f'"{text}"' for text in TEXTS] + [json.dumps(text) for text in TEXTS]
    values += NUMBERS + SHAPES[:6]
    found = [f'{{"{field}":{value}}}' for field in FIELDS for value in values]
    found += [f'{{"variables":{{{json.dumps(text)}:"x"}}}}' for text in TEXTS]
    found += [f'{{"variables":{{"tone":{value}}}}}' for value in values]
    raw = [text.encode("utf-8", "surrogatepass") for text in [*found, *SHAPES, *NUMBERS]]
    return [*raw, b"\xff", b'{"input":"\xff"}', b'{"input":"\xed\xa0\x80"}', b"\xef\xbb\xbf{}"]


HEADER_VALUES = [
    b"", b" ", b"\x00", b"a\x00b", b"\xff\xfe", b"\xed\xa0\x80", b"x" * 30_000, b"\x7f",
    b"\x1b[31m", b"text/x; a*=bogus''x; charset=bogus", b"9" * 5000, b"-1", b"0x10",
    b"1, 2", b"a\tb", b"%0d%0aSet-Cookie: a=b", b'"', b"; q=0.1",
    b"a\rb", b"a\r\n folded", b"=?utf-8?q?x?=", b"(comment)", b"*/*, " * 2000,
]  # fmt: skip
HEADER_NAMES = [
    "Host", "Authorization", "X-API-Key", "Idempotency-Key", "X-Request-ID", "Content-Type",
    "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Connection", "Upgrade",
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Cookie", "Accept",
    "Accept-Language", "Sec-Fetch-Site", "Origin", "Referer", "Range", "TE", "If-None-Match",
    "User-Agent", "X-HTTP-Method-Override", "",
]  # fmt: skip
TARGETS = [
    b"*", b"/", b"//", b"/..", b"/%00", b"/%ff", b"/%", b"/%0d%0a", b"/api/v1/generate/",
    b"/api/v1/generate/%00", b"/api/v1/generate/1%2f..", b"/api/v1/generate/" + b"9" * 5000,
    b"/api/v1/generate/-1", b"/api/v1/generate/1;x", b"/api/v1/generate/\xc3\xa9",
    b"/api/v1/generate/%F0%9F%92%A9", b"/api/v1/generate/1?" + b"a=b&" * 1000, b"/api/v1/../admin/",
    b"http://other.example/api/v1/generate/1", b"/api/v1/generate/" + b"%41" * 3000,
    b"/admin/login/?next=%00", b"/admin/login/?next=//evil.example", b"/static/../manage.py",
    b"/static/%2e%2e/manage.py", b"/api/v1/openapi.json?" + b"\xff", b"/metrics/x", b"/readyz%00",
]  # fmt: skip
METHODS = b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT FOO".split()


async def statuses(port: int, requests: list[bytes]) -> dict[bytes, int]:
    """What each is answered with, so many at once; 0 where the connection was closed."""
    results: dict[bytes, int] = {}
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            results[request] = (await exchange(port, request)).status

    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(work())
    return results


@pytest.fixture(scope="module")
def production(postgres_url, emptied_after):
    settings = {**PRODUCTION, "LOG_LEVEL": "WARNING"}
    with (
        emptied_after(),
        service.shared(postgres_url, LLM_PROVIDER="simulated", **settings) as shared,
    ):
        yield shared


@pytest.fixture
async def fuzzed(production, users, orm, peppered):
    """It has a key for the service, and the proof that it took no harm."""
    key = await amake_key()
    production.auth = f"X-API-Key: {key}"
    for _ in range(20):  # whatever is loaded late is loaded now
        await exchange(production.port, head(production.auth))
    await http.request(production.port, "GET", "/admin/login/")
    yield production
    assert (await exchange(production.port, head(production.auth))).status == 200, "it took harm"
    assert "Traceback" not in production.log
    assert "canary" not in production.log


def assert_none_is_a_fault(results: dict[bytes, int]) -> None:
    faults = {request[:300]: status for request, status in results.items() if status >= 500}
    assert not faults, faults


async def test_no_body_is_a_fault_of_ours(fuzzed):
    requests = [head(fuzzed.auth, f"Content-Length: {len(body)}") + body for body in bodies()]
    results = await statuses(fuzzed.port, requests)
    assert_none_is_a_fault(results)
    assert set(results.values()) <= {200, 400, 422}


async def test_no_header_is_a_fault_of_ours(fuzzed):
    requests = []
    for name in HEADER_NAMES:
        for value in HEADER_VALUES:
            for auth in (fuzzed.auth, "X-Nothing: x"):
                first = head(auth)[:-2]
                requests.append(first + name.encode() + b": " + value + b"\r\n\r\n")
    assert_none_is_a_fault(await statuses(fuzzed.port, requests))


async def test_no_path_and_no_method_is_a_fault_of_ours(fuzzed):
    requests = [
        b"%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % (method, target, fuzzed.auth.encode())
        for method in METHODS
        for target in TARGETS
    ]  # fmt: skip
    assert_none_is_a_fault(await statuses(fuzzed.port, requests))


async def test_no_noise_is_a_fault_of_ours(fuzzed):
    chance = random.Random(6)
    whole = head(fuzzed.auth, "Content-Length: 14") + b'{"input": "x"}'
    requests = [chance.randbytes(chance.randrange(1, 400)) + b"\r\n\r\n" for _ in range(100)]
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        requests.append(bytes(broken))
    results = {}
    for start in range(0, len(requests), 50):
        batch = requests[start : start + 50]
        answers = await asyncio.gather(*(first_status(fuzzed.port, each) for each in batch))
        results |= dict(zip(batch, answers, strict=True))
    assert_none_is_a_fault(results)


async def first_status(port: int, request: bytes) -> int:
    """The server waits for the rest of half a request, so close our end to say that none comes."""
    async with Wire.to(port) as wire:
        await wire.send(request)
        if wire.writer.can_write_eof():
            wire.writer.write_eof()
        try:
            return (await wire.reply(2)).status
        except TimeoutError:
            return 0


async def test_two_hundred_endless_bodies_at_once_take_no_memory(fuzzed):
    before = fuzzed.memory()
    fuzzed.forget_peak_memory()

    async def flood() -> int:
        async with Wire.to(fuzzed.port) as wire:
            await wire.send(head(fuzzed.auth, "Transfer-Encoding: chunked"))
            sending = asyncio.create_task(wire.send_without_end(b"[" * 65_536))
            try:
                return (await wire.reply()).status
            finally:
                sending.cancel()

    found = await asyncio.gather(*(flood() for _ in range(AT_ONCE)))
    assert set(found) <= {413, 0}  # 0: reset, for a sender that did not listen
    assert found.count(413) > AT_ONCE / 2
    grown = fuzzed.memory("VmHWM") - before
    assert grown < MORE_MEMORY, f"{grown / 1024 / 1024:.0f} MB more"


async def test_two_hundred_strangers_bodies_at_once_take_no_memory(fuzzed):
    before = fuzzed.memory()
    fuzzed.forget_peak_memory()
    body = b'{"input": "%s"}' % (b"x" * 1_000_000)
    found = await asyncio.gather(
        *(exchange(fuzzed.port, head(f"Content-Length: {len(body)}") + body)
          for _ in range(AT_ONCE))
    )  # fmt: skip
    assert {reply.status for reply in found} == {401}
    grown = fuzzed.memory("VmHWM") - before
    assert grown < MORE_MEMORY, f"{grown / 1024 / 1024:.0f} MB more"


async def test_the_paths_of_this_file_are_the_services(fuzzed):
    assert (await exchange(fuzzed.port, head(fuzzed.auth, path=GENERATE))).status == 200
