"""The native API's events: their form, their positions, and what follows a position."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from generation import events
from generation.api.native.events import NativeEvents, StoredEvents
from generation.conversation import Text, Thinking, ToolUse
from generation.errors import StreamBroken
from generation.events import (
    Start,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolEnd,
    ToolStart,
)
from generation.records import Generation, StoredGeneration, Usage
from tests.support.events import Event, parse

ID = UUID("019a9b7e-3f1c-7c52-8d0e-5b1f6a2c9e44")
USAGE = Usage(49, 12)
STREAM: list[events.Event] = [
    Start("a-model", "anthropic"),
    ThinkingDelta("Hm"),
    ThinkingDelta("…"),
    ThinkingDelta("", "signed"),
    TextDelta("Let me "),
    TextDelta("look."),
    ToolStart("call_1", "weather"),
    ToolArguments('{"city":'),
    ToolArguments('"Oslo"}'),
    ToolEnd(),
    ToolStart("call_2", "clock"),
    ToolArguments("{}"),
    ToolEnd(),
]
GENERATION = Generation(
    id=ID,
    result="Let me look.",
    usage=USAGE,
    provider="anthropic",
    model="a-model",
    latency_ms=7,
    stop_reason="tool_use",
    blocks=(
        Thinking("Hm…", "signed"),
        Text("Let me look."),
        ToolUse("call_1", "weather", '{"city":"Oslo"}'),
        ToolUse("call_2", "clock", "{}"),
    ),
)


def streamed(after: int | None = None) -> list[Event]:
    writer = NativeEvents(ID, after)
    return parse(writer.encode(STREAM[:5]) + writer.encode(STREAM[5:]) + writer.finish(GENERATION))


def stored(after: int | None = None, status="succeeded", error_type="", error="") -> list[Event]:
    row = StoredGeneration(1, status, error_type, error, GENERATION)
    return parse(StoredEvents(row, after)._rest)


def answer_of(sent: list[Event]) -> dict[str, str]:
    """What a client puts together from the deltas."""
    found = {"text": "", "thinking": "", "signature": ""}
    for event in sent:
        if event.kind != "delta":
            continue
        for member, value in event.data.items():
            if member == "tool":
                known = found.setdefault(value["id"], "")
                found[value["id"]] = known + value.get("name", "") + value.get("arguments", "")
            else:
                found[member] += value
    return found


WHOLE = {
    "text": "Let me look.",
    "thinking": "Hm…",
    "signature": "signed",
    "call_1": 'weather{"city":"Oslo"}',
    "call_2": "clock{}",
}


def test_a_stream_starts_brings_deltas_and_ends_with_usage_and_the_whole_answer():
    start, *deltas, usage, done = streamed()
    assert (start.kind, start.data) == (
        "start",
        {"id": str(ID), "model": "a-model", "provider": "anthropic"},
    )
    assert {event.kind for event in deltas} == {"delta"}
    assert answer_of(deltas) == WHOLE
    assert (usage.kind, usage.data["total_tokens"]) == ("usage", 61)
    assert (done.kind, done.data["result"], done.data["stop_reason"]) == (
        "done",
        "Let me look.",
        "tool_use",
    )
    assert [block["type"] for block in done.data["content"]] == [
        *("thinking", "text", "tool_use", "tool_use")
    ]


def test_an_event_takes_one_line_of_data_whatever_its_text():
    raw = NativeEvents(ID).encode([TextDelta("a\nb\r\nc\u2028d\u0085\x00")])
    assert raw.count(b"\ndata: ") == 1
    (event,) = parse(raw)
    assert event.data == {"text": "a\nb\r\nc\u2028d\u0085\x00"}


def test_a_lone_surrogate_does_not_end_a_stream():
    (event,) = parse(NativeEvents(ID).encode([TextDelta("a\ud800b")]))
    assert event.data["text"].startswith("a")


def test_every_event_says_which_part_of_the_answer_a_client_has_with_it():
    ids = [int(event.id) for event in streamed()]
    assert ids == sorted(ids)
    assert ids[0] == 0
    assert ids[-1] == ids[-2] == len("Hm…^Let me look.^") + len('{"city":"Oslo"}^{}')
    assert len(set(ids[:-2])) == len(ids[:-2]), "each delta has a position of its own"


@pytest.mark.parametrize("source", [streamed, stored])
def test_what_follows_a_position_is_the_same_from_the_stream_and_from_the_row(source):
    everything = streamed()
    end = int(everything[-1].id)
    for had in everything[:-2]:
        before = [event for event in everything if int(event.id) <= int(had.id)]
        rest = source(int(had.id))
        assert rest[0].kind != "start"
        both = answer_of([*before, *rest])
        assert both == WHOLE, f"after {had}"
        assert [event.kind for event in rest[-2:]] == ["usage", "done"]
    assert [event.kind for event in source(end)] == ["usage", "done"]
    assert [event.kind for event in source(10**9)] == ["usage", "done"]


def test_a_position_inside_a_stored_text_is_found():
    rest = stored(len("Hm…^Let me "))
    assert rest[0].data == {"text": "look."}


def test_an_answer_that_was_made_earlier_is_a_stream_too():
    whole = parse(NativeEvents(UUID(int=0)).finish(GENERATION))
    assert answer_of(whole) == WHOLE
    assert whole[0].data["id"] == str(ID), "the row is the earlier request's"


def test_an_error_is_the_last_event_and_a_problem_document():
    writer = NativeEvents(ID)
    raw = writer.encode(STREAM[:5]) + writer.fail(StreamBroken("it broke off"))
    last = parse(raw)[-1]
    assert last.kind == "error"
    assert last.data["type"] == "urn:staccato:problem:stream-broken"
    assert last.data["detail"] == "it broke off"
    again = stored(None, "failed", "stream-broken", "it broke off")[-1]
    assert again.data == last.data


def test_an_error_that_this_version_does_not_know_has_a_document_all_the_same():
    last = stored(None, "failed", "from-the-future", "who knows")[-1]
    assert (last.data["status"], last.data["detail"]) == (502, "who knows")
    assert json.dumps(last.data)
