"""What was paid for is used, or counted at least; and one caller's prompt harms no other."""

from __future__ import annotations

import asyncio

import pytest

from generation import errors
from generation.records import Usage
from tests.support.dialects import OpenAIDialect, slugs
from tests.support.provider import says, sends


def empty(dialect):
    return dialect.answer(content=[]) if dialect.name == "anthropic" else dialect.answer("")


@pytest.mark.parametrize(
    "reply",
    [
        empty,
        lambda dialect: dialect.refusal(),
        lambda dialect: dialect.cut_off(""),
        lambda dialect: {"answer": "in another shape"},
        lambda _: b'{"choices": [{"message": {"content": "half',
        lambda _: b"<!doctype html><title>Sign in</title>",
        lambda dialect: dialect.error("overloaded"),
        lambda _: b"busy",
    ],
    ids=["empty", "refusal", "cut off", "shape", "torn JSON", "page", "error", "no JSON"],
)
async def test_replies_to_one_prompt_never_close_the_provider_to_others(
    client, server, dialect, prompt, reply
):
    body = reply(dialect)
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        server.script = [says(200, body)] * 12
        outcomes = await asyncio.gather(*(llm.complete(prompt) for _ in range(12)))
        assert all(outcome.error for outcome in outcomes)
        assert (await llm.complete(prompt)).require_reply().text == "Hello."
    assert len(server.requests) == 13


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        (b"", 2),
        (b"busy", 2),
        (b"<html>Sign in</html>", 1),
        (b'{"choices": [{"message": {"content": "half', 1),
        (b"{}", 1),
        (b'{"answer": 1}', 1),
    ],
    ids=repr,
)
async def test_a_reply_is_asked_for_again_once_and_only_if_it_can_hold_no_answer(
    client, server, prompt, body, calls
):
    server.behave = says(200, body)
    async with client(LLM_MAX_ATTEMPTS=9) as llm:
        assert (await llm.complete(prompt)).reply is None
    assert len(server.requests) == calls


async def test_an_answer_without_text_is_paid_once_and_its_tokens_are_kept(
    client, server, dialect, prompt
):
    for body in (empty(dialect), dialect.refusal(), dialect.cut_off("")):
        server.requests.clear()
        server.behave = says(200, body)
        async with client() as llm:
            outcome = await llm.complete(prompt)
        assert len(server.requests) == 1
        assert outcome.error is not None
        assert outcome.reply is not None, "what was paid for is unknown"
        assert (outcome.reply.text, outcome.reply.usage) == ("", Usage(10, 20))
        if dialect.name == "anthropic":
            assert outcome.reply.cost_usd, "it was billed all the same"


@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_a_filtered_choice_without_a_message_is_declined(server, client, prompt, dialect):
    filtered = [{"index": 0, "finish_reason": "content_filter", "logprobs": None}]
    server.behave = says(200, dialect.answer(choices=filtered))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert type(outcome.error) is errors.LLMRefused
    assert len(server.requests) == 1
    assert outcome.reply.usage == Usage(10, 20)


@pytest.mark.parametrize("reason", ["SAFETY", "content_filter: RECITATION", "sensitive"])
@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_a_filter_in_other_words_is_a_filter(client, server, dialect, prompt, reason):
    server.behave = says(200, dialect.answer("", stop=reason))
    async with client() as llm:
        assert type((await llm.complete(prompt)).error) is errors.LLMRefused


@pytest.mark.parametrize("choices", [[], [None], [{}], [{"finish_reason": "stop"}]], ids=repr)
@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_no_choice_is_an_empty_answer(client, server, dialect, prompt, choices):
    server.behave = says(200, dialect.answer(choices=choices))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert type(outcome.error) is errors.LLMBadReply
    assert (outcome.reply.usage, len(server.requests)) == (Usage(10, 20), 1)


HALVES = [
    OpenAIDialect().answer("Half an", stop="error"),
    OpenAIDialect().answer("Half an", stop="network_error"),
    OpenAIDialect().answer("Half an", stop="insufficient_system_resource"),
    OpenAIDialect().answer("Half an", stop="abort"),
    OpenAIDialect().answer("Half an", error={"message": "upstream reset", "code": 502}),
]


@pytest.mark.parametrize("body", HALVES, ids=lambda body: str(body)[-60:])
@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_half_an_answer_is_an_error_and_its_part_is_kept(client, server, prompt, body):
    server.behave = says(200, body)
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert type(outcome.error) is errors.LLMUnreachable
    assert (outcome.reply.text, outcome.reply.usage) == ("Half an", Usage(10, 20))
    assert slugs(outcome.attempts) == ["llm-unreachable"], "it was paid for twice"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (429, errors.LLMRateLimited),
        (502, errors.LLMUnreachable),
        (503, errors.LLMOverloaded),
        ("content_filter", errors.LLMRefused),
        ("never_heard_of", errors.LLMUnreachable),
    ],
)
@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_an_error_within_a_choice_is_the_error_it_says(
    client, server, dialect, prompt, code, kind
):
    choice = {
        "message": {"content": "Half an"},
        "finish_reason": "error",
        "error": {"code": code, "message": "it says"},
    }
    server.behave = says(200, dialect.answer(choices=[choice]))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert type(outcome.error) is kind
    assert len(server.requests) == 1


async def test_a_reply_that_breaks_off_is_not_paid_for_again(client, server, prompt):
    server.behave = sends(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"con')
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert slugs(outcome.attempts) == ["llm-unreachable"]


async def test_the_circuit_counts_requests_and_not_their_attempts(client, server, dialect, prompt):
    server.behave = says(500, dialect.error("other"), retry_after="0")
    async with client(LLM_MAX_ATTEMPTS=3) as llm:
        for _ in range(9):
            assert type((await llm.complete(prompt)).error) is errors.LLMUnreachable
        server.behave = says(200, dialect.answer())
        assert (await llm.complete(prompt)).require_reply().text == "Hello."
    assert len(server.requests) > 10, "nothing was tried again, so nothing was tried"
