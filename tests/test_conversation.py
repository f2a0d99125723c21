"""What the log keeps of a conversation is bounded, whatever is large in it."""

from __future__ import annotations

import json

import pytest

from generation.conversation import (
    MAX_BYTES,
    NO_OPTIONS,
    Message,
    Options,
    Text,
    Tool,
    ToolResult,
    ToolUse,
    dump_conversation,
)

LONG = "\x01" * 500_000  # six bytes each in JSON


def says(text):
    return Message("user", (Text(text),))


LARGE = {
    "one message": ([says(LONG)], (), NO_OPTIONS),
    "many messages": ([says("x" * 3000)] * 1000, (), NO_OPTIONS),
    "many results": (
        [Message("user", tuple(ToolResult("t", (Text(LONG[:1000]),) * 50) for _ in range(50)))],
        (),
        NO_OPTIONS,
    ),
    "arguments": ([Message("assistant", (ToolUse("t", "f", LONG),))], (), NO_OPTIONS),
    "tools": ([says("hi")], [Tool(LONG[:1000], LONG[:1000], {})] * 800, NO_OPTIONS),
    "options": ([says("hi")], (), Options(stop=(LONG,))),
}


@pytest.mark.parametrize("sent", LARGE.values(), ids=LARGE)
def test_a_large_conversation_is_kept_within_its_bound(sent):
    kept = dump_conversation(*sent)
    assert len(kept.encode()) <= MAX_BYTES * 1.2
    assert json.loads(kept)["messages"]


def test_the_newest_messages_are_kept_and_the_others_counted():
    kept = json.loads(dump_conversation(LARGE["many messages"][0] + [says("last")], (), NO_OPTIONS))
    first, *_, last = kept["messages"]
    left_out = 1001 - (len(kept["messages"]) - 1)
    assert first["content"][0]["text"] == f"[{left_out} earlier messages are not kept]"
    assert last["content"][0]["text"] == "last"


def test_a_conversation_of_the_usual_size_is_kept_whole():
    sent = [says("a"), Message("assistant", (ToolUse("t", "f", "{}"),))]
    kept = json.loads(dump_conversation(sent, [Tool("f", "d", {"type": "object"})], NO_OPTIONS))
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]
    assert kept["tools"][0] == {"name": "f", "description": "d", "parameters": {"type": "object"}}
