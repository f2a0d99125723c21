"""Odd streams, as servers send them, read into events that are never odd."""

from __future__ import annotations

import time

import pytest

from generation.conversation import Text, Thinking, ToolUse
from generation.llm.providers.parsing import UnusableReply
from generation.llm.providers.stream_reader import ErrorEvent
from generation.records import Finding, Usage
from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.readers import assert_is_in_order, read

ANTHROPIC, OPENAI = AnthropicDialect(), OpenAIDialect()
DONE = b"[DONE]"


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields}]}


def finish(reason="stop", **others):
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **others}


def call(arguments=None, **fields):
    function = {
        k: v for k, v in (("name", fields.pop("name", None)), ("arguments", arguments)) if v
    }
    return {**fields, "function": function}


A, B = ("f", '{"a":1}'), ("g", '{"b":2}')
TWO_CALLS = {
    "as OpenAI sends them": [
        [call(index=0, id="1", type="function", name="f")],
        [call('{"a"', index=0)],
        [call(":1}", index=0)],
        [call(index=1, id="2", type="function", name="g")],
        [call('{"b":2}', index=1)],
    ],
    "in one chunk": [
        [call('{"a":1}', index=0, id="1", name="f"), call('{"b":2}', index=1, id="2", name="g")]
    ],
    "the index from 1": [
        [call('{"a":1}', index=1, id="1", name="f")],
        [call('{"b":2}', index=2, id="2", name="g")],
    ],
    "no index": [
        [call('{"a"', id="1", name="f")],
        [call(":1}")],
        [call('{"b":2}', id="2", name="g")],
    ],
    "neither index nor id": [[call('{"a":1}', name="f")], [call('{"b"', name="g")], [call(":2}")]],
    "one index for all": [
        [call('{"a":1}', index=0, id="1", name="f")],
        [call('{"b":2}', index=0, id="2", name="g")],
    ],
    "one index for all and no id": [
        [call('{"a":1}', index=0, name="f")],
        [call('{"b":2}', index=0, name="g")],
    ],
    "id and name each time": [
        [call('{"a"', index=0, id="1", name="f")],
        [call(":1}", index=0, id="1", name="f")],
        [call('{"b"', index=1, id="2", name="g")],
        [call(":2}", index=1, id="2", name="g")],
    ],
    "null for what is known": [
        [call('{"a"', index=0, id="1", name="f")],
        [{"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": ":1}"}}],
        [call('{"b":2}', index=1, id="2", name="g")],
    ],
    "by turns": [
        [call(index=0, id="1", name="f"), call(index=1, id="2", name="g")],
        [call('{"a"', index=0)],
        [call('{"b"', index=1)],
        [call(":1}", index=0)],
        [call(":2}", index=1)],
    ],
    "an object for arguments": [
        [{"index": 0, "id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
        [call('{"b":2}', index=1, id="2", name="g")],
    ],
    "the id after the name": [
        [call(index=0, name="f")],
        [call('{"a":1}', index=0, id="1")],
        [call('{"b":2}', index=1, id="2", name="g")],
    ],
}


@pytest.mark.parametrize("pieces", TWO_CALLS.values(), ids=TWO_CALLS)
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_two_tool_calls_are_two_however_they_are_numbered(pieces, reason):
    transcript, _ = read(OPENAI, *(delta(tool_calls=piece) for piece in pieces), finish(reason))
    assert_is_in_order(transcript.events)
    assert [(block.name, block.arguments) for block in transcript.blocks()] == [A, B]
    assert len({block.id for block in transcript.blocks()}) == 2
    assert transcript.stop_reason == "tool_use"


def test_a_tool_call_without_arguments_has_an_empty_object():
    transcript, _ = read(OPENAI, delta(tool_calls=[call(index=0, id="1", name="f")]), finish())
    assert transcript.blocks() == (ToolUse("1", "f", "{}"),)


def test_the_only_call_of_the_old_protocol_is_one():
    pieces = [{"name": "f", "arguments": '{"a"'}, {"arguments": ":1}"}]
    transcript, _ = read(
        OPENAI, *(delta(function_call=piece) for piece in pieces), finish("function_call")
    )
    [block] = transcript.blocks()
    assert (block.name, block.arguments) == A


def test_long_arguments_are_not_read_again_for_each_piece_of_the_call_after_them():
    """8 MB that look like their end: read a thousand times, they hold the process up for 50 s."""
    began = time.process_time()
    long = ['{"a":[', *['"' + "x" * 250_000 + '"},{}'] * 32]
    read(
        OPENAI,
        *(delta(tool_calls=[call(piece, index=0, id="1", name="f")]) for piece in long),
        *(delta(tool_calls=[call("{}", index=1, id="2", name="g")]) for _ in range(1000)),
        *(delta(tool_calls=[call("{}", index=at % 2)]) for at in range(1000)),
        finish(),
    )
    assert time.process_time() - began < 5


def test_a_call_that_goes_on_after_its_end_is_an_error():
    with pytest.raises(UnusableReply):
        read(
            OPENAI,
            delta(tool_calls=[call('{"a"', index=0, id="1", name="f")]),
            delta(content="Or rather"),
            delta(tool_calls=[call(":1}", index=0)]),
        )


HELLO = [delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo.")]
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
WHOLE = {
    "as OpenAI sends it": [*HELLO, finish(), {"choices": [], "usage": USAGE}, DONE],
    "no role": [*HELLO[1:], finish(usage=USAGE)],
    "no index": [
        {"choices": [{"delta": {"content": "Hello."}}]},
        {"choices": [{"finish_reason": "stop"}], "usage": USAGE},
    ],
    "the index from 1": [
        {"choices": [{"index": 1, "delta": {"content": "Hello."}, "finish_reason": "stop"}]},
        {"usage": USAGE},
    ],
    "a second choice": [
        *HELLO,
        {"choices": [{"index": 1, "delta": {"content": "Another."}}]},
        finish(usage=USAGE),
    ],
    "usage before the finish": [*HELLO, {"choices": [], "usage": USAGE}, finish()],
    "usage in the finish": [*HELLO, finish(usage=USAGE), DONE],
    "usage without choices": [*HELLO, finish(), {"usage": USAGE}],
    "usage with choices of null": [*HELLO, finish(), {"choices": None, "usage": USAGE}],
    "usage twice": [*HELLO, finish(usage=USAGE), {"choices": [], "usage": USAGE}],
    "usage and then null": [*HELLO, finish(usage=USAGE), {"choices": [], "usage": None}],
    "usage that grows": [
        {**delta(content="Hello."), "usage": {**USAGE, "completion_tokens": 1}},
        finish(usage=USAGE),
    ],
    "an empty finish": [
        {"choices": [{"delta": {"content": "Hello."}, "finish_reason": ""}]},
        finish(usage=USAGE),
    ],
    "two finishes": [*HELLO, finish(), finish("length", usage=USAGE)],
    "text after the finish": [*HELLO, finish(usage=USAGE), delta(content="more")],
    "no delta": [
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 0}]},
        *HELLO,
        finish(usage=USAGE),
    ],
    "an empty first chunk": [{"choices": [], "model": "", "id": ""}, *HELLO, finish(usage=USAGE)],
    "lines that are no JSON": [b"keep-alive", *HELLO, b"ping", finish(usage=USAGE)],
    "events that are no objects": [b"[]", b"7", *HELLO, finish(usage=USAGE)],
    "a message in place of deltas": [
        {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}], "usage": USAGE}
    ],
    "parts": [delta(content=[{"type": "text", "text": "Hello."}]), finish(usage=USAGE)],
    "usage alone, and then the end": [*HELLO, {"choices": [], "usage": USAGE}, DONE],
    "an error after the finish": [*HELLO, finish(usage=USAGE), {"error": {"message": "late"}}],
    "an error without content": [
        {**HELLO[0], "error": None},
        *HELLO,
        finish(usage=USAGE, error={}),
    ],
}


@pytest.mark.parametrize("payloads", WHOLE.values(), ids=WHOLE)
def test_a_whole_chat_completion_is_whole_in_whichever_shape(payloads):
    transcript, _ = read(OPENAI, *payloads)
    assert (transcript.text, transcript.usage) == ("Hello.", Usage(9, 3))
    assert transcript.stop_reason in {"end_turn", ""}


HALF = {
    "no finish": HELLO,
    "no finish, and the end": [*HELLO, DONE],
    "usage with the last word, and the end": [*HELLO[:-1], {**HELLO[-1], "usage": USAGE}, DONE],
    "torn JSON": [*HELLO, b'{"choices": [{"delta"', finish()],
    "a finish that says so": [*HELLO, finish("network_error")],
}


@pytest.mark.parametrize("payloads", HALF.values(), ids=HALF)
def test_half_a_chat_completion_is_never_whole(payloads):
    with pytest.raises(UnusableReply) as caught:
        read(OPENAI, *payloads)
    assert caught.value.finding is Finding.BROKEN_OFF


def test_an_event_that_is_no_json_is_named_as_the_reason():
    with pytest.raises(UnusableReply, match="no JSON"):
        read(OPENAI, *HELLO, b'{"choices": [{"delta": {"content": "\xff"}}]}', finish())


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ({"error": {"message": "busy", "type": "overloaded_error"}}, ""),
        ({"error": {"message": "busy", "code": "overloaded_error"}, "choices": []}, ""),
        ({"error": "server overloaded"}, ""),
        ({"error": {"message": "server overloaded"}}, "error"),
        ({"message": "server overloaded", "code": 503}, "error"),
        ({"object": "error", "message": "server overloaded", "code": 503}, ""),
        ({"choices": [{"delta": {}, "error": {"code": 503, "message": "busy"}}]}, ""),
    ],
    ids=str,
)
def test_an_error_in_a_stream_is_seen_in_each_of_its_shapes(payload, name):
    with pytest.raises(ErrorEvent) as caught:
        read(OPENAI, *HELLO, payload, names=["", "", "", name])
    assert caught.value.error.finding is Finding.OVERLOADED


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_thinking(field):
    transcript, _ = read(
        OPENAI,
        delta(**{field: "Let me"}),
        delta(**{field: " see."}),
        delta(content="Yes."),
        finish(),
    )
    assert transcript.blocks() == (Thinking("Let me see."), Text("Yes."))


def test_a_refusal_without_text_is_a_refusal():
    transcript, _ = read(OPENAI, delta(refusal="I"), delta(refusal=" can't."), finish())
    assert (transcript.stop_reason, transcript.events) == ("refusal", [])


@pytest.mark.parametrize("dialect", [ANTHROPIC, OPENAI], ids=["anthropic", "openai"])
def test_a_character_in_two_halves_is_one(dialect):
    pieces = [rb"\ud83d", rb"\ude42 and half \ud83d", b" one"]
    body = [
        event.split(b"data: ")[1].strip()
        for event in dialect.stream(*(f"<{number}>" for number in range(3)))
        if b"data: " in event
    ]
    for number, piece in enumerate(pieces):
        body = [data.replace(b"<%d>" % number, piece) for data in body]
    assert read(dialect, *body)[0].text == "🙂 and half � one"
