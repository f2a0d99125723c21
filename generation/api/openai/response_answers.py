"""Responses as their clients read them: whole, and as a stream of events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from generation.api.openai import errors
from generation.conversation import Text, ToolUse
from generation.errors import AbandonedByClient
from generation.events import (
    Start,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolEnd,
    ToolStart,
    of_generation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from generation.api.asking import Asked
    from generation.conversation import Block
    from generation.errors import StaccatoError
    from generation.events import Event
    from generation.records import Generation, StoredGeneration, Usage


def whole(generation: Generation, asked: Asked) -> dict[str, Any]:
    is_cut = generation.stop_reason == "max_tokens"
    return {
        **under_way(generation.id, generation.model, asked),
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": _output(generation),
        "usage": usage_of(generation.usage),
    }


def stored(found: StoredGeneration, asked: Asked) -> dict[str, Any]:
    """A response as its row has it."""
    response = whole(found.generation, asked)
    if found.status == "succeeded":
        return response
    ending = _failure(found.error_type, errors.code_of(found.error_type), found.error)
    return {**response, "incomplete_details": None, **ending}


def _failure(slug: str, code: str, message: str) -> dict[str, Any]:
    if slug == AbandonedByClient.slug:  # nobody but its caller ends one before its time
        return {"status": "cancelled", "error": None}
    return {"status": "failed", "error": {"code": code, "message": message}}


def under_way(
    generation_id: UUID, model: str, asked: Asked, status: str = "in_progress"
) -> dict[str, Any]:
    options = asked.options
    return {
        "id": f"resp_{generation_id.hex}",
        "object": "response",
        "created_at": (generation_id.int >> 80) // 1000,  # a UUIDv7 begins with its milliseconds
        "status": status,
        "background": asked.is_background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": asked.max_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": options.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": options.reasoning_effort or None, "summary": None},
        "store": asked.is_background,
        "temperature": options.temperature,
        "text": {"format": {"type": (options.response_format or {}).get("type", "text")}},
        "tool_choice": options.tool_choice or "auto",
        "tools": [],
        "top_p": options.top_p,
        "truncation": "disabled",
        "usage": None,
        "metadata": asked.metadata,
    }


def _output(generation: Generation) -> list[dict[str, Any]]:
    """The texts and the calls, numbered. Thoughts have no place without their summary."""
    blocks: tuple[Block, ...] = generation.blocks or (Text(generation.result),)
    shown = [block for block in blocks if isinstance(block, Text | ToolUse)]
    return [
        _message(generation.id, number, block.text)
        if isinstance(block, Text)
        else _call(generation.id, number, block)
        for number, block in enumerate(shown)
    ]


def _message(generation_id: UUID, number: int, text: str | None) -> dict[str, Any]:
    """None: its text has not begun."""
    return {
        "id": f"msg_{generation_id.hex}_{number}",
        "type": "message",
        "status": "in_progress" if text is None else "completed",
        "role": "assistant",
        "content": [] if text is None else [_part(text)],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(
    generation_id: UUID, number: int, call: ToolUse, status: str = "completed"
) -> dict[str, Any]:
    return {
        "id": f"fc_{generation_id.hex}_{number}",
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """0 where a count is not known."""
    return {
        "input_tokens": usage.input_tokens or 0,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens or 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.known_tokens,
    }


class ResponseEvents:
    """Writes a stream of one response's events, numbered from 0.

    Those of a background response rise by one for each character of a delta, so that its row says
    what follows a number as well as the running stream does.
    """

    def __init__(self, generation_id: UUID, asked: Asked, after: int = -1) -> None:
        """`after`: the number of the last event that the client has."""
        self._id = generation_id
        self._asked = asked
        self._after = after
        self._model = asked.model
        self._has_begun = False
        self._has_answer = False  # at least its start
        self._sequence = 0  # the next event's number
        self._number = -1  # of the latest item
        self._call: ToolUse | None = None  # that is open
        self._has_text = False  # a message is open
        self._written: list[str] = []  # of the item that is open

    def begin(self) -> bytes:
        """The first events, which say under which name a client finds the response again."""
        self._has_begun = True
        response = under_way(self._id, self._model, self._asked)
        written = self._event("response.created", response=response)
        return written + self._event("response.in_progress", response=response)

    def encode(self, events: Sequence[Event]) -> bytes:
        self._has_answer = True
        return b"".join([self._encode(event) for event in events])

    def finish(self, generation: Generation) -> bytes:
        answered = b""
        if not self._has_answer:  # it was made earlier
            self._id = generation.id
            answered = self.encode(of_generation(generation))
        response = whole(generation, self._asked)
        kind = f"response.{response['status']}"
        return answered + self._close() + self._event(kind, response=response)

    def fail(self, error: StaccatoError) -> bytes:
        fault = errors.document(error)["error"]
        ending = _failure(error.slug, fault["code"], fault["message"])
        failed = {**under_way(self._id, self._model, self._asked), **ending}
        return self._event("response.failed", response=failed)

    def of_row(self, found: StoredGeneration) -> bytes:
        """All that follows what the client has."""
        written = self.begin()
        if self._after < 0 or found.is_verbatim:
            written += self.encode(of_generation(found.generation))
        else:  # its number is none in what is kept of the answer
            self._sequence = max(self._sequence, self._after + 1)
        response = stored(found, self._asked)
        if found.status != "succeeded":
            return written + self._event("response.failed", response=response)
        kind = f"response.{response['status']}"
        return written + self._close() + self._event(kind, response=response)

    def _encode(self, event: Event) -> bytes:
        written = b""
        match event:
            case TextDelta(text) if text:
                written = b"" if self._has_text else self._begin_text()
                written += self._delta(
                    "response.output_text.delta", text, {**self._place(), "logprobs": []}
                )
            case Start(model):
                self._model = model
                written = b"" if self._has_begun else self.begin()
            case ToolStart(call_id, name):
                written = self._close() + self._begin_call(ToolUse(call_id, name, ""))
            case ToolArguments(text):
                kind = "response.function_call_arguments.delta"
                written = self._delta(kind, text, self._item_place())
            case ToolEnd() | ThinkingDelta():  # thoughts are not shown, and part two texts
                written = self._close()
        return written

    def _begin_text(self) -> bytes:
        written = self._close()
        self._number += 1
        self._has_text = True
        item = _message(self._id, self._number, None)
        added = self._event("response.output_item.added", output_index=self._number, item=item)
        begun = self._event("response.content_part.added", **self._place(), part=_part(""))
        return written + added + begun

    def _begin_call(self, call: ToolUse) -> bytes:
        self._number += 1
        self._call = call
        item = _call(self._id, self._number, call, "in_progress")
        return self._event("response.output_item.added", output_index=self._number, item=item)

    def _close(self) -> bytes:
        """End the item that is open."""
        text = "".join(self._written)
        self._written = []
        if self._has_text:
            place = self._place()
            self._has_text = False
            written = self._event("response.output_text.done", **place, text=text, logprobs=[])
            written += self._event("response.content_part.done", **place, part=_part(text))
            item = _message(self._id, self._number, text)
        elif self._call is not None:
            call = ToolUse(self._call.id, self._call.name, text)
            place = self._item_place()
            self._call = None
            written = self._event(
                "response.function_call_arguments.done", **place, name=call.name, arguments=text
            )
            item = _call(self._id, self._number, call)
        else:
            return b""
        return written + self._event(
            "response.output_item.done", output_index=self._number, item=item
        )

    def _place(self) -> dict[str, Any]:
        return {**self._item_place(), "content_index": 0}

    def _item_place(self) -> dict[str, Any]:
        prefix = "msg" if self._has_text else "fc"
        return {
            "item_id": f"{prefix}_{self._id.hex}_{self._number}",
            "output_index": self._number,
        }

    def _delta(self, kind: str, text: str, members: dict[str, Any]) -> bytes:
        self._written.append(text)
        if not self._asked.is_background:
            return self._event(kind, **members, delta=text)
        known = self._after + 1 - self._sequence  # characters that the client has
        self._sequence += len(text) - 1  # its last character's
        return self._event(kind, **members, delta=text[max(0, known) :])

    def _event(self, kind: str, **members: Any) -> bytes:
        number = self._sequence
        self._sequence += 1
        if number <= self._after:
            return b""
        document = {"type": kind, "sequence_number": number, **members}
        try:
            data = orjson.dumps(document)
        except TypeError:  # a lone surrogate, which the model may write
            data = json.dumps(document).encode()
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
