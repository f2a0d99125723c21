"""Reads a streamed chat completion, as OpenAI or a server that speaks its protocol sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from generation.llm.providers.error_bodies import read_error
from generation.llm.providers.parsing import BROKEN_OFF, optional
from generation.llm.providers.stream_reader import ErrorEvent, StreamReader
from generation.records import Usage

if TYPE_CHECKING:
    from generation.llm.providers.parsing import Decoration
    from generation.llm.transcript import Transcript

# A log row has the same words for stop reasons, whichever provider answered: Anthropic's.
STOP_REASON = {
    word: reason
    for reason, words in {
        "end_turn": "stop end_turn eos eos_token stop_sequence",
        "max_tokens": "length max_tokens max_output_tokens model_length"
        " model_context_window_exceeded",
        # Gemini, z.AI and others pass their own words on.
        "refusal": "content_filter refusal safety recitation blocklist prohibited_content spii"
        " image_safety sensitive",
        "tool_use": "tool_calls function_call",
        # OpenRouter, z.AI, DeepSeek, SGLang: half an answer
        BROKEN_OFF: "error network_error insufficient_system_resource abort aborted cancelled",
    }.items()
    for word in words.split()
}
_FUNCTION_CALL = -1  # the index of the only call of the old field `function_call`


class ChatReader(StreamReader):
    def __init__(self, name: str, transcript: Transcript, decoration: Decoration) -> None:
        super().__init__(name, transcript, decoration)
        self._choice: object = None  # the index of the one that is read
        self._has_refused = False
        self._has_closing_usage = False

    def _read(self, payload: dict[str, Any]) -> None:
        transcript = self.transcript
        if not transcript.model and payload.get("model"):
            transcript.model = self._decoration.name(payload, "model")
        usage = payload.get("usage")
        choices = payload.get("choices")
        if usage and isinstance(usage, dict):
            transcript.usage = count(usage, self._decoration)
            self._has_closing_usage = not choices and bool(transcript.events)
        if not choices:
            if not usage and ("message" in payload or "detail" in payload):
                self._look_for_error("", payload)
            return
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index") or 0
            if self._choice is None:
                self._choice = index
            if index == self._choice and transcript.stop_reason is None:
                self._read_choice(choice)

    def read_message(self, message: dict[str, Any]) -> None:
        """A message that came whole."""
        self._read_delta(message, message.get("content"))
        self._tools.end()

    def _read_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if delta is None and not self.transcript.events:
            delta = choice.get("message")  # all of the answer in one event
        if isinstance(delta, dict):
            content = delta.get("content")
            if content and isinstance(content, str) and len(delta) <= 2:  # nearly every event
                self._add_text(content)
            else:
                self._read_delta(delta, content)
        if choice.get("error"):
            self._refuse(choice)
        reason = choice.get("finish_reason")
        if reason:
            self._finish(choice)

    def _read_delta(self, delta: dict[str, Any], content: object) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            self._add_thinking(thought)
        if content:
            self._read_content(content)
        if delta.get("refusal"):
            self._has_refused = True
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                index = call.get("index")
                is_index = isinstance(index, int) and not isinstance(index, bool)
                self._read_call(index if is_index else None, call.get("id"), call.get("function"))
        if delta.get("function_call"):
            self._read_call(_FUNCTION_CALL, None, delta["function_call"])

    def _read_content(self, content: object) -> None:
        if isinstance(content, str):
            self._add_text(content)
            return
        for part in content if isinstance(content, list) else ():
            if isinstance(part, str):
                self._add_text(part)
            elif text := optional(str, part, "text"):
                self._add_text(text)
            elif optional(str, part, "type") == "thinking":  # Mistral
                for inner in optional(list, part, "thinking") or ():
                    self._add_thinking(optional(str, inner, "text") or "")

    def _read_call(self, index: int | None, call_id: object, function: object) -> None:
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if arguments is not None and not isinstance(arguments, str):  # Ollama: an object
            arguments = orjson.dumps(arguments).decode()
        self._add_to_call(
            index,
            call_id if isinstance(call_id, str) else "",
            optional(str, function, "name") or "",
            arguments or "",
        )

    def _refuse(self, choice: dict[str, Any]) -> None:
        error = read_error({"error": choice["error"]}, 200)
        if error is not None:
            raise ErrorEvent(error)

    def _finish(self, choice: dict[str, Any]) -> None:
        said = self._decoration.name(choice, "finish_reason")
        word = said.partition(":")[0].strip().lower()
        reason = STOP_REASON.get(word, said)
        if self._has_refused and not self.transcript.events:
            reason = "refusal"
        self._stop(reason)

    def _close(self) -> None:
        """Some gateways name no reason. Usage is the last thing that a whole answer brings, so
        usage on its own and then the end prove as much."""
        if not self.is_stopped and self._has_closing_usage:
            self._decoration.doubt("finish_reason")
            self._stop("")


def count(usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
    given = decoration.tokens(usage, "prompt_tokens")
    made = decoration.tokens(usage, "completion_tokens")
    details = optional(dict, usage, "prompt_tokens_details")
    cached = decoration.part_of_tokens(details, "cached_tokens")
    return Usage(given, made, min(cached, given or 0))
