"""The two wire formats, as a server speaks them. Tests take both through one fixture."""

from __future__ import annotations

import json
from typing import Any

from generation.records import Prompt

KEY = "canary-key-5f3a9d7e21"  # not of the form that is hidden whoever's it is

PROMPT = Prompt(text="Say hello.", system="", provider="", model="", max_tokens=100)


class AnthropicDialect:
    name = "anthropic"
    model = "claude-sonnet-5-5"
    path = "/v1/messages"

    def settings(self, url: str, **others: Any) -> dict[str, Any]:
        return {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url, **others}

    def answer(self, text: object = "Hello.", stop: str = "end_turn", **others: Any) -> Any:
        return {
            "type": "message",
            "model": self.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": stop,
            "usage": {"input_tokens": 10, "output_tokens": 20},
            **others,
        }

    def stream(self, *texts: str, stop: str = "end_turn") -> list[bytes]:
        """The events of a streamed answer. The last but one is the one that stops it."""
        return [
            self.event("message_start", message=self._opening()),
            self.event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *(self.delta(text) for text in texts),
            self.event("content_block_stop", index=0),
            self.event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 20}),
            self.event("message_stop"),
        ]

    def _opening(self) -> Any:
        usage = {"input_tokens": 10, "output_tokens": 1}
        return self.answer(content=[], stop_reason=None, usage=usage)

    def delta(self, text: str) -> bytes:
        return self.event(
            "content_block_delta", index=0, delta={"type": "text_delta", "text": text}
        )

    def error_event(self, kind: str) -> bytes:
        return self.event("error", error=self.error(kind)["error"])

    def event(self, kind: str, **payload: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **payload})}\n\n".encode()

    def cut_off(self, text: str) -> Any:
        return self.answer(text, stop="max_tokens")

    def counts(self, given: object, made: object) -> Any:
        return self.answer(usage={"input_tokens": given, "output_tokens": made})

    def several_texts(self, *texts: str) -> Any:
        return self.answer(content=[{"type": "text", "text": text} for text in texts])

    def tool_use(self, *texts: str) -> Any:
        blocks = [{"type": "text", "text": text} for text in texts]
        tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        return self.answer(content=[*blocks, tool], stop_reason="tool_use")

    def refusal(self) -> Any:
        return self.answer(content=[], stop_reason="refusal")

    def error(self, kind: str, message: str = "no") -> Any:
        kinds = {
            "overloaded": "overloaded_error",
            "caller": "invalid_request_error",
            "limited": "rate_limit_error",
            "key": "authentication_error",
            "other": "never_heard_of",
        }
        return {"type": "error", "error": {"type": kinds[kind], "message": message}}


class OpenAIDialect:
    name = "openai"
    model = "some-model"
    path = "/chat/completions"

    def settings(self, url: str, **others: Any) -> dict[str, Any]:
        return {
            "LLM_PROVIDER": "openai",
            "LLM_MODEL": self.model,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": url,
            **others,
        }

    def answer(self, text: object = "Hello.", stop: str = "stop", **others: Any) -> Any:
        return {
            "model": self.model,
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": stop}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
            **others,
        }

    def stream(self, *texts: str, stop: str = "stop") -> list[bytes]:
        """The events of a streamed answer. The last but two is the one that stops it."""
        usage = {"prompt_tokens": 10, "completion_tokens": 20}
        return [
            self.chunk({"role": "assistant", "content": ""}),
            *map(self.delta, texts),
            self.chunk({}, finish_reason=stop),
            self.event(choices=[], usage=usage),
            b"data: [DONE]\n\n",
        ]

    def delta(self, text: str) -> bytes:
        return self.chunk({"content": text})

    def error_event(self, kind: str) -> bytes:
        return self.event(**self.error(kind))

    def chunk(self, delta: object, **choice: Any) -> bytes:
        return self.event(
            model=self.model,
            choices=[{"index": 0, "delta": delta, "finish_reason": None, **choice}],
        )

    def event(self, **payload: Any) -> bytes:
        return f"data: {json.dumps(payload)}\n\n".encode()

    def cut_off(self, text: str) -> Any:
        return self.answer(text, stop="length")

    def counts(self, given: object, made: object) -> Any:
        return self.answer(usage={"prompt_tokens": given, "completion_tokens": made})

    def several_texts(self, *texts: str) -> Any:
        return self.answer([{"type": "text", "text": text} for text in texts])

    def tool_use(self, *texts: str) -> Any:
        message = {
            "content": "".join(texts) or None,
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
        return self.answer(choices=[{"message": message, "finish_reason": "tool_calls"}])

    def refusal(self) -> Any:
        message = {"content": None, "refusal": "I can't."}
        return self.answer(choices=[{"message": message, "finish_reason": "stop"}])

    def error(self, kind: str, message: str = "no") -> Any:
        codes: dict[str, Any] = {
            "overloaded": 503,
            "caller": "context_length_exceeded",
            "limited": "rate_limit_exceeded",
            "key": "invalid_api_key",
            "other": "never_heard_of",
        }
        return {"error": {"message": message, "type": "whatever", "code": codes[kind]}}


DIALECTS = (AnthropicDialect(), OpenAIDialect())


def slugs(attempts):
    return [attempt.error for attempt in attempts]
