"""A wrong request is refused soon and in few words, however much is wrong with it."""

from __future__ import annotations

import functools

import orjson

from generation.api.base import FAULTS_LISTED
from generation.api.native.schemas import GenerateIn
from tests.support import cpu
from tests.support.http import GENERATE
from tests.support.problems import problem

NAMES = [f"{number:05}" for number in range(80_000)]


def hostile() -> dict[str, object]:
    return {
        "unknown members": dict.fromkeys(NAMES, 1),
        "unknown members and wrong ones": {name: [] for name in [*NAMES, *GenerateIn.model_fields]},
        "variables": {"variables": dict.fromkeys(NAMES, 1)},
        "variables that fit": {"variables": dict.fromkeys(NAMES, "")},
        "a few long names": {"x" * 30_000 + str(number): 1 for number in range(30)},
        "variables of long names": {"variables": {"x" * 9_000 + n: 1 for n in NAMES[:100]}},
        "a list of variables": {"variables": NAMES},
        "an object for a text": {"input": dict.fromkeys(NAMES, 1)},
        "a list": NAMES,
        "a list of objects": [{} for _ in NAMES],
        "a text": "x" * 900_000,
    }


async def test_faults_without_number_are_listed_as_a_few(client, subtests):
    for kind, values in hostile().items():
        with subtests.test(kind):
            body = orjson.dumps(values)
            assert len(body) < 1_048_576
            answer = await client.post(GENERATE, content=body)
            assert problem(answer) == (422, "invalid-request")
            assert 1 <= len(answer.json()["errors"]) <= FAULTS_LISTED
            assert len(answer.content) < 4_000


def long_to_read() -> dict[str, bytes]:
    return {
        "unknown": b"{" + b",".join(b'"%05d":1' % number for number in range(90_000)) + b"}",
        "same": b"{" + b",".join([b'"input":"x"'] * 80_000) + b"}",
        "same variable": b'{"variables":{' + b",".join([b'"a":"x"'] * 100_000) + b"}}",
        "lists": b"[" * 1_000_000,
        "objects": b'{"a":' * 200_000,
        "deep": b'{"input":' + b"[" * 900 + b"]" * 900 + b"}",
        "number": b"9" * 1_000_000,
        "tokens": b'{"max_tokens":' + b"9" * 1_000_000 + b"}",
        "text of digits": b'{"max_tokens":"' + b"9" * 1_000_000 + b'"}',
        "escapes": b'"' + b"\\u0041" * 170_000 + b'"',
    }


async def test_no_body_takes_the_loop_for_long(client, subtests):
    await client.post(GENERATE)
    for kind, body in long_to_read().items():
        with subtests.test(kind):
            posted = functools.partial(client.post, GENERATE, content=body)
            answer = await cpu.within(0.5, posted, "100,000 listed faults took seconds")
            assert answer.status_code in {200, 400, 422}
            assert len(answer.content) < 4_000


async def test_known_members_are_judged_among_many_unknown_ones(client):
    body = {**dict.fromkeys(NAMES[:100], 1), "max_tokens": "many"}
    found = (await client.post(GENERATE, json=body)).json()["errors"]
    assert {"where": "body.max_tokens", "why": found[0]["why"]} == found[0]


async def test_a_body_that_is_no_object_is_told_so_in_plain_words(client, subtests):
    for body in [b"[]", b'"x"', b"1", b"true"]:
        with subtests.test(body=body):
            answer = await client.post(GENERATE, content=body)
            assert problem(answer) == (422, "invalid-request")
            assert answer.json()["errors"] == [
                {"where": "body", "why": "the body must be a JSON object"}
            ]
            assert "GenerateIn" not in answer.text


SPELLINGS = [
    "1%0a", "+1", "01", "1.0", "1_0", "%201", "1%20", "1%00", "%EF%BC%91", "%D9%A1", "1e0", "0x1",
    "-0", "-1", "true", "1%2f", "9" * 19, "9" * 5_000,
]  # fmt: skip


async def test_a_user_has_one_spelling(client, subtests):
    for spelling in SPELLINGS:
        with subtests.test(spelling=spelling):
            answer = await client.post(f"/api/v1/generate/{spelling}")
            assert answer.status_code in {404, 422}
            assert answer.headers["content-type"] == "application/problem+json"
            assert len(answer.content) < 1_000


async def test_an_escaped_digit_is_the_digit(client):
    assert (await client.post("/api/v1/generate/%31")).status_code == 200


UNKNOWN = [
    "/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/x", "/api/v1/x%0a", "/api/v1//generate/1",
    "/api/v2/generate/1", "/api/v1/generate/", "/api/v1/generate/1/", "/api/v1/docs/", "/livez/",
    "/readyz/x", "/metrics/",
]  # fmt: skip


async def test_an_unknown_address_of_the_api_is_a_problem(client, subtests):
    for path in UNKNOWN:
        for method in ("GET", "POST"):
            with subtests.test(path=path, method=method):
                assert problem(await client.request(method, path)) == (404, "not-found")
