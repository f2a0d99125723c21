"""Anthropic's streams as servers send them, read into events that are never odd."""

from __future__ import annotations

import pytest

from generation.conversation import Text, Thinking, ToolUse
from generation.llm.providers.stream_reader import ErrorEvent
from generation.records import Finding, Usage
from tests.support.dialects import AnthropicDialect
from tests.support.readers import assert_is_in_order, read

ANTHROPIC = AnthropicDialect()
A, B = ("f", '{"a":1}'), ("g", '{"b":2}')


def block(index, kind, *deltas, **fields):
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(said):
    return {"type": "text_delta", "text": said}


START = {
    "type": "message_start",
    "message": {"model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}},
}
PING = {"type": "ping"}


def end(reason="end_turn", **usage):
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reason},
        "usage": {"output_tokens": 3, **usage},
    }
    yield {"type": "message_stop"}


MESSAGES = {
    "as Anthropic sends it": [START, *block(0, "text", text("Hel"), text("lo.")), *end()],
    "pings and kinds to come": [
        PING,
        START,
        PING,
        {"type": "what_is_this", "message": "hi"},
        *block(0, "text", {"type": "new_delta", "x": 1}, text("Hello.")),
        PING,
        *end(),
    ],
    "no message_stop": [START, *block(0, "text", text("Hello.")), next(iter(end()))],
    "no block's ends": [START, *block(0, "text", text("Hello."))[:-1], *end()],
    "no block's start": [START, *block(0, "text", text("Hello."))[1:], *end()],
    "the server's own tool": [
        START,
        *block(0, "server_tool_use", {"type": "input_json_delta", "partial_json": '{"q":1}'}),
        *block(1, "web_search_tool_result", content=[]),
        *block(2, "text", text("Hello.")),
        *end(),
    ],
    "usage once more": [START, *block(0, "text", text("Hello.")), *end(input_tokens=9)],
    "null in the usage": [START, *block(0, "text", text("Hello.")), *end(input_tokens=None)],
}


@pytest.mark.parametrize("payloads", MESSAGES.values(), ids=MESSAGES)
def test_a_whole_message_is_whole_in_whichever_shape(payloads):
    transcript, _ = read(ANTHROPIC, *payloads)
    assert (transcript.text, transcript.usage) == ("Hello.", Usage(9, 3))
    assert (transcript.stop_reason, transcript.model) == ("end_turn", "m")
    assert transcript.blocks() == (Text("Hello."),)


def test_the_blocks_of_a_message_keep_their_kinds():
    json = {"type": "input_json_delta"}
    transcript, _ = read(
        ANTHROPIC,
        START,
        *block(
            0,
            "thinking",
            {"type": "thinking_delta", "thinking": "Let me "},
            {"type": "thinking_delta", "thinking": "see."},
            {"type": "signature_delta", "signature": "sig"},
            thinking="",
        ),
        *block(1, "redacted_thinking", data="secret"),
        *block(2, "text", text("I'll look.")),
        *block(
            3,
            "tool_use",
            {**json, "partial_json": '{"a"'},
            {**json, "partial_json": ":1}"},
            id="1",
            name="f",
            input={},
        ),
        *block(4, "tool_use", id="2", name="g", input={"b": 2}),
        *block(5, "tool_use", {**json, "partial_json": ""}, id="3", name="h", input={}),
        *end("tool_use"),
    )
    assert_is_in_order(transcript.events)
    assert transcript.blocks() == (
        Thinking("Let me see.", "sig"),
        Thinking("", "secret", is_redacted=True),
        Text("I'll look."),
        ToolUse("1", "f", '{"a":1}'),
        ToolUse("2", "g", '{"b":2}'),
        ToolUse("3", "h", "{}"),
    )


def arguments(index, piece):
    delta = {"type": "input_json_delta", "partial_json": piece}
    return {"type": "content_block_delta", "index": index, "delta": delta}


F, G = (
    block(number, "tool_use", id=str(number), name=name, input={})
    for number, name in enumerate("fg")
)
BY_TURNS = [arguments(0, '{"a"'), arguments(1, '{"b"'), arguments(0, ":1}"), arguments(1, ":2}")]
CALLS_OF_MESSAGES = {
    "by turns": [F[0], G[0], *BY_TURNS, F[1], G[1]],
    "by turns, without ends": [F[0], G[0], *BY_TURNS],
    "ended together": [F[0], arguments(0, A[1]), G[0], arguments(1, B[1]), F[1], G[1]],
    "no index": [
        {key: value for key, value in event.items() if key != "index"}
        for event in (F[0], arguments(0, A[1]), F[1], G[0], arguments(1, B[1]), G[1])
    ],
    "one index": [
        {**event, "index": 0}
        for event in (F[0], arguments(0, A[1]), F[1], G[0], arguments(1, B[1]), G[1])
    ],
}


@pytest.mark.parametrize("payloads", CALLS_OF_MESSAGES.values(), ids=CALLS_OF_MESSAGES)
def test_two_tool_calls_of_a_message_are_two_however_they_are_numbered(payloads):
    transcript, _ = read(ANTHROPIC, START, *payloads, *end("tool_use"))
    assert_is_in_order(transcript.events)
    assert transcript.blocks() == (ToolUse("0", *A), ToolUse("1", *B))


def test_an_error_in_a_message_is_the_error_it_says():
    with pytest.raises(ErrorEvent) as caught:
        read(ANTHROPIC, START, {"type": "error", "error": {"type": "overloaded_error"}})
    assert caught.value.error.finding is Finding.OVERLOADED
