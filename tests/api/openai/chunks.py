"""Reads a stream of chunks as strictly as the strictest client does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Read:
    id: str = ""
    text: str = ""
    thoughts: str = ""
    finish_reason: str = ""
    usage: Any = None
    calls: list[tuple[str, str, str]] = field(default_factory=list)


def read(body: bytes, *, wants_usage: bool) -> Read:
    """Asserts the form of the stream; returns what it says."""
    assert body.endswith(b"\n\n"), "the stream ends in the middle of an event"
    *events, done = body.removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    for event in events:
        assert event.startswith(b"data: {"), f"a line that is no chunk: {event!r}"
        assert b"\n" not in event, "some clients read line by line"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    same = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks}
    assert len(same) == 1, "all chunks are of one answer"
    found = Read(id=chunks[0]["id"])
    assert chunks[0]["object"] == "chat.completion.chunk"
    if wants_usage:
        last = chunks.pop()
        assert last["choices"] == []
        found.usage = last["usage"]
        assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= set(found.usage)
    assert not any("usage" in c for c in chunks), "usage comes once, last, and only if asked for"
    choices = []
    for each in chunks:
        (choice,) = each["choices"]
        assert choice["index"] == 0
        choices.append(choice)
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    for choice in choices[1:]:
        _read_delta(found, choice["delta"])
    assert all(c["finish_reason"] is None for c in choices[:-1]), "the finish comes once, and last"
    assert choices[-1]["delta"] == {}
    found.finish_reason = choices[-1]["finish_reason"]
    return found


def _read_delta(found: Read, delta: dict[str, Any]) -> None:
    assert "role" not in delta, "the role comes once, and first"
    assert None not in delta.values()
    found.text += delta.get("content", "")
    found.thoughts += delta.get("reasoning_content", "")
    if "tool_calls" not in delta:
        return
    (call,) = delta["tool_calls"]
    function = call["function"]
    if "id" in call:
        assert call["index"] == len(found.calls), "calls are numbered from 0"
        assert call["type"] == "function"
        found.calls.append((call["id"], function["name"], function["arguments"]))
        return
    assert call["index"] == len(found.calls) - 1, "one call after the other"
    assert set(call) == {"index", "function"}, "id, type and name come once"
    assert set(function) == {"arguments"}
    call_id, name, arguments = found.calls.pop()
    found.calls.append((call_id, name, arguments + function["arguments"]))
