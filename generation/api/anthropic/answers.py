"""Messages as their clients read them: whole, and as a stream that all of them accept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from generation.api.anthropic import errors
from generation.conversation import Text, Thinking
from generation.events import (
    Extra,
    Start,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolEnd,
    ToolStart,
    of_generation,
)
from generation.records import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from generation.conversation import Block
    from generation.errors import StaccatoError
    from generation.events import Event
    from generation.records import Generation

_STOP_REASONS = frozenset(
    ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"]
)


def whole(generation: Generation) -> dict[str, Any]:
    """A message. What we don't know of the provider's own JSON stays in it."""
    original = generation.original or {}
    content, usage = original.get("content"), original.get("usage")
    is_content = isinstance(content, list) and all(
        isinstance(block, dict) and isinstance(block.get("type"), str) for block in content
    )
    blocks = generation.blocks or ((Text(generation.result),) if generation.result else ())
    return {
        "stop_sequence": None,
        **original,
        "id": _name(generation.id),
        "type": "message",
        "role": "assistant",
        "model": generation.model,
        "content": content if is_content else [_block(block) for block in blocks],
        "stop_reason": stop_reason(generation),
        "usage": {**(usage if isinstance(usage, dict) else {}), **usage_of(generation.usage)},
    }


def _name(generation_id: UUID) -> str:
    return f"msg_{generation_id.hex}"


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text(text):
            return {"type": "text", "text": text}
        case Thinking(_, signature, True):
            return {"type": "redacted_thinking", "data": signature}
        case Thinking(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
    return {
        "type": "tool_use",
        "id": block.id,
        "name": block.name,
        "input": _input(block.arguments),
    }


def _input(arguments: str) -> dict[str, Any]:
    """The arguments as an object, which they are not if the model wrote no valid JSON."""
    try:
        given = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        given = None
    return given if isinstance(given, dict) else {"INVALID_JSON": arguments}


def stop_reason(generation: Generation) -> str:
    reason = generation.stop_reason
    return reason if reason in _STOP_REASONS else "end_turn"


def usage_of(usage: Usage) -> dict[str, int]:
    """Cached tokens are counted apart here. 0 where a count is not known."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": max(0, (usage.input_tokens or 0) - cached),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens or 0,
    }


class MessageEvents:
    """Writes a stream of one message's events, in the order in which clients need them."""

    def __init__(self, generation_id: UUID) -> None:
        self._id = generation_id
        self._has_begun = False
        self._index = -1  # of the latest block
        self._open = ""  # the kind of the block that is open
        self._ending: Mapping[str, Any] = {}  # the provider's own members of `message_delta`

    def encode(self, events: Sequence[Event]) -> bytes:
        return b"".join([self._encode(event) for event in events])

    def finish(self, generation: Generation) -> bytes:
        answered = b""
        if not self._has_begun:  # it was made earlier
            self._id = generation.id
            answered = self.encode(of_generation(generation))
        given = self._ending.get("delta", {})
        delta = {
            **self._ending,
            "type": "message_delta",
            "delta": {"stop_sequence": None, **given, "stop_reason": stop_reason(generation)},
            # All counts: clients take them for those of the whole message.
            "usage": {**self._ending.get("usage", {}), **usage_of(generation.usage)},
        }
        ended = _event(b"message_stop", {"type": "message_stop"})
        return answered + self._close() + _event(b"message_delta", delta) + ended

    def fail(self, error: StaccatoError) -> bytes:
        return _event(b"error", errors.document(error))

    def _encode(self, event: Event) -> bytes:
        written = b""
        match event:
            case TextDelta(text) if text:
                written = self._require("text", {"type": "text", "text": ""})
                written += self._delta({"type": "text_delta", "text": text})
            case Start():
                written = self._start(event)
            case Extra(members):
                written = self._extra(members)
            case ThinkingDelta(_, signature, True):
                hidden = {"type": "redacted_thinking", "data": signature}
                written = self._close() + self._begin("redacted_thinking", hidden) + self._close()
            case ThinkingDelta(text, signature):
                written = self._think(text, signature)
            case ToolStart(call_id, name):
                block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                written = self._close() + self._begin("tool_use", block)
            case ToolArguments(text):
                written = self._delta({"type": "input_json_delta", "partial_json": text})
            case ToolEnd():
                written = self._close()
        return written

    def _start(self, start: Start) -> bytes:
        self._has_begun = True
        given: Mapping[str, Any] = {}
        for extra in start.extras:
            given = extra.members.get("message", given)
        message: dict[str, Any] = {
            **given,
            "id": _name(self._id),
            "type": "message",
            "role": "assistant",
            "model": start.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The end has all counts.
            "usage": {**given.get("usage", {}), **usage_of(start.usage or Usage(None, None))},
        }
        return _event(b"message_start", {"type": "message_start", "message": message})

    def _extra(self, members: Mapping[str, Any]) -> bytes:
        """What the provider sent besides, in our numbers of the blocks."""
        match members["type"]:
            case "content_block_start":
                block = members["content_block"]
                return self._close() + self._begin(block.get("type") or "text", block, members)
            case "content_block_stop":
                return self._close()
            case "content_block_delta":
                begun = b"" if self._open else self._begin("text", {"type": "text", "text": ""})
                delta = {**members, "index": self._index}
                return begun + _event(b"content_block_delta", delta)
        self._ending = members
        return b""

    def _think(self, text: str, signature: str) -> bytes:
        """A signature ends its block."""
        block = {"type": "thinking", "thinking": "", "signature": ""}
        written = self._require("thinking", block)
        if text:
            written += self._delta({"type": "thinking_delta", "thinking": text})
        if signature:
            written += self._delta({"type": "signature_delta", "signature": signature})
            written += self._close()
        return written

    def _require(self, kind: str, block: dict[str, Any]) -> bytes:
        """Begin a block, unless one of this kind is open."""
        return b"" if self._open == kind else self._close() + self._begin(kind, block)

    def _begin(
        self, kind: str, block: Mapping[str, Any], others: Mapping[str, Any] | None = None
    ) -> bytes:
        self._index += 1
        self._open = kind
        begun = {"type": "content_block_start", "index": self._index, "content_block": block}
        return _event(b"content_block_start", {**others, **begun} if others else begun)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event(
            b"content_block_delta",
            {"type": "content_block_delta", "index": self._index, "delta": delta},
        )

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        stop = {"type": "content_block_stop", "index": self._index}
        return _event(b"content_block_stop", stop)


def _event(kind: bytes, document: dict[str, Any]) -> bytes:
    try:
        data = orjson.dumps(document)
    except TypeError:  # a lone surrogate, which the model may write
        data = json.dumps(document).encode()
    return b"event: %b\ndata: %b\n\n" % (kind, data)
