"""A whole answer with odd decoration is an answer: the text is what was paid for."""

from __future__ import annotations

import gzip
import json

import pytest
from prometheus_client import REGISTRY

from generation.records import Usage
from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import says

ANTHROPIC, OPENAI = AnthropicDialect(), OpenAIDialect()


def doubtful(provider, part):
    labels = {"provider": provider, "part": part}
    return REGISTRY.get_sample_value("staccato_llm_doubtful_answers_total", labels) or 0


@pytest.fixture
def reply(client, server, prompt):
    async def ask(body, **headers):
        server.behave = says(200, body, **headers)
        async with client(LLM_MAX_ATTEMPTS=1) as llm:
            return (await llm.complete(prompt)).require_reply()

    return ask


@pytest.mark.parametrize("usage", [None, [], {}, "many", 7], ids=repr)
async def test_an_answer_whose_tokens_are_unknown_is_an_answer(reply, dialect, usage):
    before = doubtful(dialect.name, "usage")
    answer = await reply(dialect.answer(usage=usage))
    assert (answer.text, answer.usage) == ("Hello.", Usage(None, None))
    assert (answer.cost_usd, answer.usage.known_tokens) == (None, 0)
    assert "Hello." in answer.raw_reply
    assert doubtful(dialect.name, "usage") == before + 1


@pytest.mark.parametrize("encoding", ["UTF-8", "Identity", "none", "gzip", "br"])
async def test_an_answer_in_plain_text_is_one_whatever_encoding_its_header_names(
    reply, dialect, encoding
):
    assert (await reply(dialect.answer(), content_encoding=encoding)).text == "Hello."


@pytest.mark.parametrize("headers", [{"content_encoding": "gzip"}, {}], ids=repr)
async def test_an_answer_that_is_compressed_unasked_is_an_answer(reply, dialect, headers):
    packed = gzip.compress(json.dumps(dialect.answer()).encode())
    assert (await reply(packed, **headers)).text == "Hello."


async def test_a_count_with_a_fraction_of_zero_is_a_count(reply, dialect):
    assert (await reply(dialect.counts(9.0, 3.0))).usage == Usage(9, 3)


@pytest.mark.parametrize(
    "error",
    [
        None,
        "",
        False,
        0,
        {},
        [],
        {"message": "", "type": "", "param": "", "code": None},
        {"code": 0, "message": "success"},
        {"code": "200", "message": "OK"},
    ],
    ids=repr,
)
async def test_an_error_without_content_beside_an_answer_is_none(reply, dialect, error):
    assert (await reply(dialect.answer(error=error))).text == "Hello."


async def test_a_status_of_success_within_the_body_is_no_error(reply, dialect):
    done = {"status_code": 0, "status_msg": "success"}
    assert (await reply(dialect.answer(base_resp=done))).text == "Hello."


@pytest.mark.parametrize("dialect", [OPENAI], ids=["openai"])
async def test_an_error_beside_a_choice_that_ended_well_is_decoration(reply, dialect):
    choice = dialect.answer()["choices"][0] | {"error": {"message": "odd", "code": 1}}
    assert (await reply(dialect.answer(choices=[choice]))).text == "Hello."
    assert doubtful("openai", "error")


async def test_a_byte_order_mark_is_passed_over(reply, dialect):
    answer = await reply(b"\xef\xbb\xbf" + json.dumps(dialect.answer()).encode())
    assert answer.text == "Hello."


@pytest.mark.parametrize("dialect", [OPENAI], ids=["openai"])
@pytest.mark.parametrize("reason", [None, "", "eos", "STOP", 5])
async def test_an_unusual_stop_reason_costs_no_answer(reply, dialect, reason):
    assert (await reply(dialect.answer(stop=reason))).text == "Hello."


@pytest.mark.parametrize("dialect", [OPENAI], ids=["openai"])
@pytest.mark.parametrize("details", [None, [], "x", {"cached_tokens": None}, {"cached_tokens": -1}])
async def test_details_of_the_count_may_be_anything(reply, dialect, details):
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": details}
    assert (await reply(dialect.answer(usage=usage))).usage == Usage(9, 3)


def events(*payloads, done=True):
    lines = [f"data: {json.dumps(payload)}\n\n" for payload in payloads]
    return "".join([": keep-alive\n\n", *lines, "data: [DONE]\n\n" * done]).encode()


def openai_chunks():
    first = {"model": "m", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}
    second = {"choices": [{"index": 0, "delta": {"content": "lo."}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    return [first, second, usage]


def anthropic_chunks():
    start = {"model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}
    block = {"type": "text", "text": ""}
    delta = {"stop_reason": "end_turn"}
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]


CHUNKS = {"openai": openai_chunks, "anthropic": anthropic_chunks}


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
async def test_an_answer_that_is_streamed_unasked_is_joined(reply, dialect, content_type):
    body = events(*CHUNKS[dialect.name]())
    answer = await reply(body, content_type=content_type)
    assert (answer.text, answer.usage) == ("Hello.", Usage(9, 3))
    assert answer.stop_reason == "end_turn"


async def test_a_stream_without_an_end_is_half_an_answer(client, server, dialect, prompt):
    chunks = CHUNKS[dialect.name]()
    server.behave = says(200, events(*chunks[: -2 if dialect.name == "openai" else -3], done=False))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert outcome.error.slug == "llm-unreachable"
    assert outcome.reply.text.startswith("Hel")
    assert len(server.requests) == 1


async def test_an_error_in_a_stream_is_the_error_it_says(client, server, dialect, prompt):
    chunks = CHUNKS[dialect.name]()[: 3 if dialect.name == "anthropic" else 1]
    server.behave = says(200, events(*chunks, dialect.error("overloaded"), done=False))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert outcome.error.slug == "llm-overloaded"
    assert outcome.reply.text == "Hel"
    assert len(server.requests) == 1
