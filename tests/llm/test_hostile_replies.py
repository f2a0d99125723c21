"""Replies are hostile input: each has one defined outcome, and none is a 500."""

from __future__ import annotations

import gzip
import json

import pytest

from generation import errors
from generation.conversation import Text, Thinking
from generation.records import Usage
from tests.support.dialects import OpenAIDialect
from tests.support.provider import hangs, says, sends

DEEP = b'{"content":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
HUGE_NUMBER = b'{"usage": ' + b"9" * 10_000 + b', "x": "\\ud800"}'


@pytest.fixture
def outcome(client, server, prompt):
    """Asks once and gives what came of it, a reply or an error."""

    async def ask(behaviour, **settings):
        server.behave = behaviour
        async with client(LLM_MAX_ATTEMPTS=1, **settings) as llm:
            outcome = await llm.complete(prompt)
        assert outcome.attempts, "the attempt is not in the log row"
        assert isinstance(outcome.model, str)
        if outcome.error is None:
            return outcome.require_reply()
        assert outcome.error.status in {422, 429, 502, 503, 504}
        return outcome.error

    return ask


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"{}",
        b'{"content": NaN}',
        b"\xff\xfe\x00",
        b'{"a": "\\ud800',
        DEEP,
        DEEP.replace(b"content", b"\\ud800"),
        HUGE_NUMBER,
        b'{"error": "down"}',
        b'{"error": [1]}',
        b'{"error": {"type": 5, "code": [], "message": {}}}',
        b'{"error": {"type": "\\ud800"}}',
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_what_is_not_a_reply_is_a_bad_reply(outcome, body):
    error = await outcome(says(200, body))
    assert type(error) is errors.LLMBadReply
    assert error.status_code == 200
    start = body[:20].decode("utf-8", "replace").replace("\0", "\ufffd")
    assert error.raw_reply.startswith(start), "the log row can't show what was sent"
    assert len(error.raw_reply) <= 4000


JUNK = [None, 5, -1, True, "x", [], {}, [None], [5], [[]], [{}], {"a": 1}, 1e300, 2**63]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
async def test_wrong_types_anywhere_are_survived(outcome, dialect, junk):
    """Each field of a good reply, at every depth, replaced by junk."""
    for mutated in mutations(dialect.answer(), junk):
        result = await outcome(says(200, mutated))
        if isinstance(result, errors.LLMError):
            assert type(result) in {errors.LLMBadReply, errors.LLMRefused}, mutated
            assert result.raw_reply, mutated
        else:
            assert isinstance(result.text, str), mutated
            assert result.usage.known_tokens >= 0, mutated


def mutations(value, junk):
    if isinstance(value, dict):
        for key in value:
            yield value | {key: junk}
            for inner in mutations(value[key], junk):
                yield value | {key: inner}
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield [*value[:place], junk, *value[place + 1 :]]
            for inner in mutations(item, junk):
                yield [*value[:place], inner, *value[place + 1 :]]


@pytest.mark.parametrize("count", [-1, 10**9, 10**30, 1.5, "7", True, None, {}], ids=repr)
async def test_a_count_that_cannot_be_true_is_unknown_and_the_text_an_answer(
    outcome, dialect, count
):
    reply = await outcome(says(200, dialect.counts(count, 1)))
    assert (reply.text, reply.usage) == ("Hello.", Usage(None, 1))
    reply = await outcome(says(200, dialect.counts(1, count)))
    assert (reply.text, reply.usage) == ("Hello.", Usage(1, None))
    assert "Hello." in reply.raw_reply, "an operator can't see what was sent"
    assert reply.cost_usd is None


async def test_an_empty_answer_is_a_bad_reply(outcome, dialect):
    error = await outcome(says(200, dialect.answer("")))
    assert type(error) is errors.LLMBadReply


async def test_an_answer_cut_off_by_max_tokens_is_an_answer(outcome, dialect):
    reply = await outcome(says(200, dialect.cut_off("Once upon")))
    assert (reply.text, reply.stop_reason) == ("Once upon", "max_tokens")
    assert "Once upon" in reply.raw_reply


async def test_max_tokens_without_any_text_tells_the_caller_to_allow_more(outcome, dialect):
    error = await outcome(says(200, dialect.cut_off("")))
    assert type(error) is errors.LLMRefused
    assert "max_tokens" in error.detail


async def test_several_texts_are_one(outcome, dialect):
    reply = await outcome(says(200, dialect.several_texts("One, ", "two.")))
    assert reply.text == "One, two."
    assert "One, " in reply.raw_reply


async def test_a_tool_call_is_an_answer_with_text_and_without(outcome, dialect):
    for texts in (["Let me see."], []):
        reply = await outcome(says(200, dialect.tool_use(*texts)))
        assert (reply.text, reply.stop_reason) == ("".join(texts), "tool_use")
        *said, call = reply.blocks
        assert said == [Text(text) for text in texts]
        assert (call.name, call.arguments) == ("f", "{}")
        assert call.id, "its result could not name it"


@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
@pytest.mark.parametrize(
    ("message", "blocks"),
    [
        ({"content": "Hi.", "tool_calls": None, "reasoning_content": ""}, ()),
        ({"content": "Hi.", "reasoning_content": "Hm."}, (Thinking("Hm."), Text("Hi."))),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "Hi."},
                ]
            },
            (Thinking("Hm."), Text("Hi.")),
        ),
    ],
    ids=["plain", "field", "part"],
)
async def test_thinking_is_kept_beside_the_text(outcome, dialect, message, blocks):
    choice = {"message": message, "finish_reason": "stop"}
    reply = await outcome(says(200, dialect.answer(choices=[choice])))
    assert (reply.text, reply.blocks) == ("Hi.", blocks)


async def test_a_declined_prompt_is_the_callers(outcome, dialect):
    error = await outcome(says(200, dialect.refusal()))
    assert type(error) is errors.LLMRefused
    assert "declines" in error.detail
    assert error.raw_reply


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded", errors.LLMOverloaded),
        ("limited", errors.LLMRateLimited),
        ("caller", errors.LLMRefused),
        ("key", errors.LLMAuthentication),
        ("other", errors.LLMBadReply),
    ],
)
async def test_an_error_with_status_200_is_the_error_it_says(outcome, dialect, kind, expected):
    error = await outcome(says(200, dialect.error(kind)))
    assert type(error) is expected


async def test_a_callers_error_quotes_the_provider(outcome, dialect):
    error = await outcome(says(400, dialect.error("caller", "prompt is too long: 9 > 8")))
    assert "prompt is too long: 9 > 8" in error.detail


async def test_an_unpaid_account_is_ours_and_not_worth_a_retry(client, server, prompt, dialect):
    if dialect.name == "openai":
        unpaid = says(429, {"error": {"code": "insufficient_quota", "message": "pay"}})
    else:
        unpaid = says(402, {"error": {"type": "billing_error", "message": "pay"}})
    server.behave = unpaid
    async with client() as llm:
        with pytest.raises(errors.LLMMisconfigured) as caught:
            (await llm.complete(prompt)).require_reply()
    assert caught.value.status == 502
    assert len(server.requests) == 1


async def test_an_error_page_that_is_no_json_still_means_its_status(outcome):
    assert type(await outcome(says(529, b"<html>"))) is errors.LLMOverloaded
    assert type(await outcome(says(503, gzip.compress(b"x"), content_encoding="gzip"))) is (
        errors.LLMOverloaded
    )


async def test_an_oversized_reply_is_cut_while_it_is_read(outcome, server):
    sent = 0

    async def floods(exchange):
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        while sent < 1_000_000_000:
            await exchange.send(chunk)
            sent += 65536

    error = await outcome(floods, LLM_MAX_REPLY_BYTES=100_000)
    assert type(error) is errors.LLMBadReply
    assert "100000 bytes" in error.detail
    await server.until(lambda: server.connected == 0, "closing")
    assert sent < 50_000_000, "it was read to the end"


async def test_a_compressed_bomb_is_unpacked_no_further_than_a_reply_may_be_long(outcome, dialect):
    bomb = gzip.compress(json.dumps(dialect.answer(" " * 20_000_000)).encode())
    error = await outcome(says(200, bomb, content_encoding="gzip"))
    assert type(error) is errors.LLMBadReply
    assert "compressed and holds more than" in error.detail


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_compressed_reply_that_can_not_be_read_is_asked_for_once(outcome, server, encoding):
    broken = gzip.compress(b"{}")[:2] + b"\xff" * 20 if encoding == "gzip" else b"\xff" * 20
    error = await outcome(says(200, broken, content_encoding=encoding))
    assert type(error) is errors.LLMBadReply
    assert len(server.requests) == 1, "it may hold an answer that was paid for"


async def test_a_body_shorter_than_promised_is_unreachable_and_its_part_is_kept(outcome):
    error = await outcome(sends(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"con'))
    assert type(error) is errors.LLMUnreachable
    assert error.raw_reply == '{"con'


def breaks_off(status):
    head = f"HTTP/1.1 {status} No\r\nretry-after: 7\r\ncontent-length: 99\r\n\r\n{{"
    return sends(head.encode())


def stalls(status):
    async def behave(exchange):
        await exchange.send(f"HTTP/1.1 {status} No\r\nretry-after: 7\r\n".encode())
        await exchange.send(b"content-length: 99\r\n\r\n{")
        await hangs(exchange)

    return behave


@pytest.mark.parametrize("broken", [breaks_off, stalls])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.LLMRefused),
        (401, errors.LLMAuthentication),
        (429, errors.LLMRateLimited),
        (529, errors.LLMOverloaded),
    ],
)
async def test_an_error_whose_body_never_ends_still_means_its_status(outcome, broken, status, kind):
    error = await outcome(broken(status))
    assert type(error) is kind
    assert (error.status_code, error.retry_after, error.raw_reply) == (status, 7, "{")


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d", "ﷺ" * 10, "<script>", "\u202e"])
async def test_the_text_is_passed_on_as_it_is(outcome, dialect, text):
    body = json.dumps(dialect.answer(text)).encode()
    assert (await outcome(says(200, body))).text == text


@pytest.mark.parametrize("model", ["m\0", "m\n", "m\ud800", "m" * 300, 5, {}], ids=repr)
async def test_a_models_name_that_no_column_takes_is_cut_or_unknown(
    client, server, prompt, dialect, model
):
    server.behave = says(200, dialect.answer(model=model))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert outcome.require_reply().text == "Hello."
    cut = "m" * min(len(model), 200) if isinstance(model, str) else dialect.model
    assert outcome.model == (cut if len(cut) == 200 or not isinstance(model, str) else "m")


async def test_a_prompt_that_cannot_be_encoded_is_refused(client, prompt):
    from dataclasses import replace

    async with client() as llm:
        with pytest.raises(errors.LLMRefused):
            (await llm.complete(replace(prompt, text="half \ud83d"))).require_reply()
