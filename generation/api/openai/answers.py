"""Chat completions as their clients read them: whole, and as a stream that all of them accept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from generation.api.openai import errors
from generation.conversation import Text, Thinking, ToolUse
from generation.events import (
    Extra,
    Start,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolStart,
    of_generation,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from generation.errors import StaccatoError
    from generation.events import Event
    from generation.records import Generation, Usage

_DONE = b"data: [DONE]\n\n"
_FINISH_REASONS = {
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def whole(generation: Generation, arrived_at: datetime) -> dict[str, Any]:
    """A completion. What we don't know of the provider's own JSON stays in it."""
    original = generation.original or {}
    choices = original.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    choice = choice if isinstance(choice, dict) else {}
    message, usage = choice.get("message"), original.get("usage")
    return {
        **original,
        "id": _name(generation.id),
        "object": "chat.completion",
        "created": int(arrived_at.timestamp()),
        "model": generation.model,
        "choices": [
            {
                "logprobs": None,
                **choice,
                "index": 0,
                "message": {
                    **(message if isinstance(message, dict) else {}),
                    **_message(generation),
                },
                "finish_reason": finish_reason(generation),
            }
        ],
        "usage": {**(usage if isinstance(usage, dict) else {}), **usage_of(generation.usage)},
    }


def _name(generation_id: UUID) -> str:
    return f"chatcmpl-{generation_id}"


def _message(generation: Generation) -> dict[str, Any]:
    blocks = generation.blocks or (Text(generation.result),)
    calls = [block for block in blocks if isinstance(block, ToolUse)]
    thought = "".join(block.text for block in blocks if isinstance(block, Thinking))
    text = "".join(block.text for block in blocks if isinstance(block, Text))
    message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    return message


def finish_reason(generation: Generation) -> str:
    """Returns one of the words that clients know: some of them refuse all others."""
    return _FINISH_REASONS.get(generation.stop_reason, "stop")


def usage_of(usage: Usage) -> dict[str, Any]:
    """All three counts are numbers, because clients expect them; 0 where it is not known."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens or 0,
        "completion_tokens": usage.output_tokens or 0,
        "total_tokens": usage.known_tokens,
    }
    if usage.cache_read_tokens:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_tokens}
    return counts


class ChatEvents:
    """Writes a stream of chunks: one id, the role first, one call a chunk, usage only if asked.

    Nothing that is not of the protocol is sent: no event names, no ids of events, nothing after
    the end.
    """

    def __init__(self, generation_id: UUID, arrived_at: datetime, *, wants_usage: bool) -> None:
        self._id = generation_id
        self._created = int(arrived_at.timestamp())
        self._wants_usage = wants_usage
        self._begin = b""  # of each chunk, once the model is known
        self._calls = -1  # the index of the latest
        self._counts: dict[str, Any] = {}  # of the usage: the provider's own

    def encode(self, events: Sequence[Event]) -> bytes:
        return b"".join([self._encode(event) for event in events])

    def finish(self, generation: Generation) -> bytes:
        answered = b""
        if not self._begin:  # it was made earlier
            self._id = generation.id
            answered = self.encode(of_generation(generation))
        chunks = [answered, self._chunk(b"{}", finish_reason(generation).encode())]
        if self._wants_usage:
            usage = orjson.dumps({**self._counts, **usage_of(generation.usage)})
            chunks.append(b'%b],"usage":%b}\n\n' % (self._begin, usage))
        return b"".join([*chunks, _DONE])

    def fail(self, error: StaccatoError) -> bytes:
        return b"data: %b\n\n%b" % (orjson.dumps(errors.document(error)), _DONE)

    def _encode(self, event: Event) -> bytes:
        match event:
            case TextDelta(text):
                return self._chunk(b'{"content":%b}' % _dump(text))
            case Start(model):
                return self._start(model) + self.encode(event.extras)
            case Extra(members):
                return self._extra(members)
            case ThinkingDelta(text, _) if text:
                return self._chunk(b'{"reasoning_content":%b}' % _dump(text))
            case ToolStart(call_id, name):
                self._calls += 1
                function = {"name": name, "arguments": ""}
                call = {"id": call_id, "type": "function", "function": function}
            case ToolArguments(text):
                call = {"function": {"arguments": text}}
            case _:
                return b""
        return self._call({"index": self._calls, **call})

    def _start(self, model: str) -> bytes:
        head = {
            "id": _name(self._id),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": model,
        }
        self._begin = b'data: %b,"choices":[' % _dump(head)[:-1]
        return self._chunk(b'{"role":"assistant","content":""}')

    def _extra(self, members: Mapping[str, Any]) -> bytes:
        """A chunk with what the provider said besides; of the usage, for the last chunk."""
        self._counts |= members.get("usage", {})
        choices = members.get("choices", [{}])
        others = {name: each for name, each in members.items() if name not in {"usage", "choices"}}
        if not others and choices == [{}]:
            return b""
        empty = {"index": 0, "delta": {}, "finish_reason": None, "logprobs": None}
        written = _dump({**others, "choices": [{**empty, **choices[0]}]})
        return b"%b,%b\n\n" % (self._begin.removesuffix(b',"choices":['), written[1:])

    def _call(self, call: Mapping[str, Any]) -> bytes:
        return self._chunk(b'{"tool_calls":[%b]}' % _dump(call))

    def _chunk(self, delta: bytes, reason: bytes = b"") -> bytes:
        return b'%b{"index":0,"delta":%b,"finish_reason":%b,"logprobs":null}]}\n\n' % (
            self._begin,
            delta,
            b'"%b"' % reason if reason else b"null",
        )


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, which the model may write
        return json.dumps(value).encode()
