"""Reads a streamed message of Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from generation.llm.providers.parsing import optional
from generation.llm.providers.stream_reader import StreamReader
from generation.records import Usage

if TYPE_CHECKING:
    from generation.llm.providers.parsing import Decoration
    from generation.llm.transcript import Transcript

STOP_REASON = {"model_context_window_exceeded": "max_tokens"}


class MessageReader(StreamReader):
    def __init__(self, name: str, transcript: Transcript, decoration: Decoration) -> None:
        super().__init__(name, transcript, decoration)
        self._usage: dict[str, Any] = {}
        self._kinds: dict[object, str] = {}  # of the blocks, by their indexes
        self._latest: object = None  # block
        self._input = ""  # of a tool call, if it came whole
        self._signature = ""  # of thinking: its last piece

    def _read(self, payload: dict[str, Any]) -> None:
        kind = payload.get("type")
        if kind == "content_block_delta":
            if not self.is_stopped:
                self._read_delta(payload)
        elif kind == "content_block_start":
            if not self.is_stopped:
                self._start_block(payload)
        elif kind == "content_block_stop":
            self._end_block()
        elif kind == "message_start":
            message = optional(dict, payload, "message") or {}
            self.transcript.model = self._decoration.name(message, "model")
            self._add_usage(message)
        elif kind == "message_delta":
            self._add_usage(payload)
            self._read_stop(optional(dict, payload, "delta") or {})
        elif kind == "message_stop":
            self.is_over = True
        elif kind == "error":
            self._look_for_error("error", payload)
        # Pings, and kinds that are to come: ignored, as Anthropic asks.

    def _read_stop(self, delta: dict[str, Any]) -> None:
        if delta.get("stop_reason") and not self.is_stopped:
            self._end_block()
            reason = self._decoration.name(delta, "stop_reason")
            self._stop(STOP_REASON.get(reason, reason))

    def _add_usage(self, holder: dict[str, Any]) -> None:
        """Each count replaces the one before."""
        usage = optional(dict, holder, "usage") or {}
        self._usage |= {key: value for key, value in usage.items() if value is not None}
        if self._usage:
            self.transcript.usage = count(self._usage, self._decoration)

    def _start_block(self, payload: dict[str, Any]) -> None:
        self._end_block()  # its end may be missing
        block = optional(dict, payload, "content_block") or {}
        kind = optional(str, block, "type") or "text"
        self._latest = payload.get("index")
        self._kinds[str(self._latest)] = kind
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
            self._add_to_call(None, call_id, optional(str, block, "name") or "", "")

    def _read_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        if not isinstance(delta, dict):
            return
        kind = delta.get("type")
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
                self._add_to_call(None, "", "", arguments)

    def _end_block(self) -> None:
        if self._signature:
            self._add_thinking("", self._signature)
            self._signature = ""
        if self._tools.are_open:
            if self._input:
                self._add_to_call(None, "", "", self._input)
            self._tools.end()
        self._input = ""


def count(usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
    plain = decoration.tokens(usage, "input_tokens")
    made = decoration.tokens(usage, "output_tokens")
    read = decoration.part_of_tokens(usage, "cache_read_input_tokens")
    written = decoration.part_of_tokens(usage, "cache_creation_input_tokens")
    if plain is None:
        return Usage(None, made)
    return Usage(plain + read + written, made, read, written)
