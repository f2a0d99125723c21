"""Reads a streamed message of Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from generation.llm.providers.parsing import optional
from generation.llm.providers.stream_reader import StreamReader, without
from generation.records import Usage

if TYPE_CHECKING:
    from generation.llm.providers.parsing import Decoration
    from generation.llm.transcript import Transcript

STOP_REASON = {"model_context_window_exceeded": "max_tokens"}
_BLOCKS = frozenset(["text", "thinking", "redacted_thinking", "tool_use"])
_DELTAS = frozenset([None, "text_delta", "thinking_delta", "signature_delta", "input_json_delta"])
# Members that are read here, or written again by the code that writes the events.
_OF_MESSAGE = frozenset(
    ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"]
)
_OF_USAGE = frozenset(
    [
        *("input_tokens", "output_tokens"),
        *("cache_read_input_tokens", "cache_creation_input_tokens"),
    ]
)
_OF_ENDING = frozenset(["type", "delta", "usage"])
_OF_ENDING_DELTA = frozenset(["stop_reason"])
_OF_TEXT = frozenset(["type", "text"])


class MessageReader(StreamReader):
    def __init__(self, name: str, transcript: Transcript, decoration: Decoration) -> None:
        super().__init__(name, transcript, decoration)
        self._usage: dict[str, Any] = {}
        self._kinds: dict[object, str] = {}  # of the blocks, by their indexes
        self._latest: object = None  # block
        self._input = ""  # of a tool call, if it came whole
        self._signature = ""  # of thinking: its last piece
        self._begun: dict[str, Any] | None = None  # a text block of which nothing has come yet
        self._has_text = False  # a block of it has begun

    def _read(self, payload: dict[str, Any]) -> None:
        kind = payload.get("type")
        if kind == "content_block_delta":
            if not self.is_stopped:
                self._read_delta(payload)
        elif kind == "content_block_start":
            if not self.is_stopped:
                self._start_block(payload)
        elif kind == "content_block_stop":
            self._stop_block(payload)
        elif kind == "message_start":
            self._start_message(optional(dict, payload, "message") or {})
        elif kind == "message_delta":
            self._add_usage(payload)
            self._read_stop(payload, optional(dict, payload, "delta") or {})
        elif kind == "message_stop":
            self.is_over = True
        elif kind == "error":
            self._look_for_error("error", payload)
        # Pings, and kinds that are to come: ignored, as Anthropic asks.

    def _start_message(self, message: dict[str, Any]) -> None:
        self.transcript.model = self._decoration.name(message, "model")
        self._add_usage(message)
        if self.keeps_extras:
            self._keep_of_message(message)

    def _stop_block(self, payload: dict[str, Any]) -> None:
        self._complete_block()
        if payload.get("index", self._latest) == self._latest:
            self._tools.end()
        if self.keeps_extras and not self._is_ours(payload):
            self._add_extra({"type": "content_block_stop"})

    def _read_stop(self, payload: dict[str, Any], delta: dict[str, Any]) -> None:
        if self.keeps_extras:
            self._keep_of_ending(payload)
        if delta.get("stop_reason") and not self.is_stopped:
            self._complete_block()
            reason = self._decoration.name(delta, "stop_reason")
            self._stop(STOP_REASON.get(reason, reason))

    def _add_usage(self, holder: dict[str, Any]) -> None:
        """Each count replaces the one before."""
        usage = optional(dict, holder, "usage") or {}
        self._usage |= {key: value for key, value in usage.items() if value is not None}
        if self._usage:
            self.transcript.usage = count(self._usage, self._decoration)

    def _start_block(self, payload: dict[str, Any]) -> None:
        self._complete_block()  # its end may be missing
        block = optional(dict, payload, "content_block") or {}
        kind = optional(str, block, "type") or "text"
        if kind != "tool_use":  # several may be written by turns
            self._tools.end()
        self._latest = payload.get("index")
        self._kinds[str(self._latest)] = kind
        if self.keeps_extras:
            self._keep_of_block(kind, payload, block)
        if kind == "text":
            self._add_text(optional(str, block, "text") or "")
        elif kind == "thinking":
            self._add_thinking(optional(str, block, "thinking") or "")
            self._signature = optional(str, block, "signature") or ""
        elif kind == "redacted_thinking":
            self._add_thinking("", optional(str, block, "data") or "", is_redacted=True)
        elif kind == "tool_use":
            given = block.get("input")
            self._input = orjson.dumps(given).decode() if given else ""
            call_id = optional(str, block, "id") or ""
            name = optional(str, block, "name") or ""
            self._add_to_call(self._index_of(payload), call_id, name, "")

    def _read_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        if not isinstance(delta, dict):
            return
        kind = delta.get("type")
        if self.keeps_extras:
            self._keep_of_delta(kind, payload)
        if kind == "text_delta" or kind is None:
            text = delta.get("text")
            if text and isinstance(text, str):
                self._add_text(text)
        elif kind == "thinking_delta":
            self._add_thinking(optional(str, delta, "thinking") or "")
        elif kind == "signature_delta":
            self._signature += optional(str, delta, "signature") or ""
        elif kind == "input_json_delta":
            index = payload.get("index", self._latest)
            if self._kinds.get(str(index)) == "tool_use":  # and not the server's own tools
                arguments = optional(str, delta, "partial_json") or ""
                self._input = self._input if not arguments else ""
                self._add_to_call(self._index_of(payload), "", "", arguments)

    def _keep_of_message(self, message: dict[str, Any]) -> None:
        members = without(_OF_MESSAGE, message)
        if counts := without(_OF_USAGE, message.get("usage")):
            members["usage"] = counts
        if members:
            self._add_extra({"type": "message_start", "message": members}, is_content=False)

    def _keep_of_block(self, kind: str, payload: dict[str, Any], block: dict[str, Any]) -> None:
        """What one of the server's own tools does, and where a text with citations begins."""
        self._begun = None
        if kind not in _BLOCKS:
            self._add_extra(payload)
        elif kind == "text":
            if self._has_text or without(_OF_TEXT, block):
                self._begun = {**payload, "content_block": {**block, "text": ""}}
            self._has_text = True
            if block.get("text"):
                self._keep_begun()

    def _keep_begun(self) -> None:
        if self._begun is not None:
            begun, self._begun = self._begun, None
            self._add_extra(begun)

    def _keep_of_delta(self, kind: object, payload: dict[str, Any]) -> None:
        self._keep_begun()
        if kind not in _DELTAS or not self._is_ours(payload):
            self._add_extra(payload)

    def _is_ours(self, payload: dict[str, Any]) -> bool:
        """Whether a piece is of a kind of block that is read here."""
        return self._kinds.get(str(payload.get("index", self._latest)), "text") in _BLOCKS

    def _keep_of_ending(self, payload: dict[str, Any]) -> None:
        members = without(_OF_ENDING, payload)
        if delta := without(_OF_ENDING_DELTA, payload.get("delta")):
            members["delta"] = delta
        if counts := without(_OF_USAGE, payload.get("usage")):
            members["usage"] = counts
        if members:
            self._add_extra({"type": "message_delta", **members}, is_content=False)

    def _index_of(self, payload: dict[str, Any]) -> int | None:
        index = payload.get("index", self._latest)
        return index if isinstance(index, int) else None

    def _complete_block(self) -> None:
        """Add to the latest block what came at its start and belongs at its end."""
        if self._signature:
            self._add_thinking("", self._signature)
            self._signature = ""
        if self._input and self._tools.are_open:
            self._add_to_call(self._index_of({}), "", "", self._input)
        self._input = ""


def count(usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
    plain = decoration.tokens(usage, "input_tokens")
    made = decoration.tokens(usage, "output_tokens")
    read = decoration.part_of_tokens(usage, "cache_read_input_tokens")
    written = decoration.part_of_tokens(usage, "cache_creation_input_tokens")
    if plain is None:
        return Usage(None, made)
    return Usage(plain + read + written, made, read, written)
