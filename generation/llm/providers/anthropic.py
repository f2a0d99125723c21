"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.llm.providers.base import Answer, HttpProvider
from generation.llm.providers.event_stream import BROKEN_OFF
from generation.llm.providers.parsing import UnusableReply, optional
from generation.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from generation.conf import Settings
    from generation.llm.providers.parsing import Decoration
    from generation.records import Prompt

_TEXT_OR_THINKING = frozenset({"text", "thinking", "redacted_thinking"})
_COMPLETE = frozenset({"end_turn", "stop_sequence"})
_STOP_REASON = {"model_context_window_exceeded": "max_tokens"}


class Anthropic(HttpProvider):
    name = "anthropic"
    default_model = "claude-sonnet-5-5"
    price_list = "anthropic"
    answer_key = "content"

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:
        return bool(settings.anthropic_api_key.get_secret_value())

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:  # noqa: ARG003  # any target
        return "" if cls.is_configured(settings) else "ANTHROPIC_API_KEY is not set"

    @classmethod
    def address(cls, settings: Settings) -> str:
        return settings.anthropic_base_url

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None:
        key = settings.anthropic_api_key.get_secret_value()
        super().__init__(
            transport,
            url=f"{settings.anthropic_base_url}/v1/messages",
            headers={"x-api-key": key, "anthropic-version": "2023-06-01"},
            secret=settings.anthropic_api_key,
            max_reply_bytes=settings.llm_max_reply_bytes,
        )

    def encode(self, prompt: Prompt, model: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": prompt.max_tokens,
            "messages": [{"role": "user", "content": prompt.text}],
            "stream": False,  # some compatible servers stream unless told
        }
        if prompt.system:
            body["system"] = prompt.system
        return body

    def decode(self, payload: Any, decoration: Decoration) -> Answer:
        content = payload.get("content") if isinstance(payload, dict) else None
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise UnusableReply(f"{self.name} sent something else than a message")
        texts, kinds = [], set()
        for block in content:
            kind = optional(str, block, "type") or "text"
            text = optional(str, block, "text")
            kinds.add(kind)
            if kind == "text" and text is not None:
                texts.append(text)
            elif kind == "text":
                decoration.doubt("content")
        stop_reason = decoration.name(payload, "stop_reason")
        answer = Answer(
            text="".join(texts),
            usage=_count(optional(dict, payload, "usage"), decoration),
            model=decoration.name(payload, "model"),
            stop_reason=_STOP_REASON.get(stop_reason, stop_reason),
        )
        answer.is_plain = (
            len(texts) == 1
            and stop_reason in _COMPLETE
            and kinds <= _TEXT_OR_THINKING
            and not decoration.doubtful
        )
        return self._require_text(answer)

    def join(self, events: Iterable[Any]) -> dict[str, Any]:
        payload: dict[str, Any] = {"stop_reason": BROKEN_OFF, "usage": {}}
        blocks: dict[object, dict[str, Any]] = {}
        for event in events:
            kind = optional(str, event, "type")
            if kind == "message_start":
                message = optional(dict, event, "message") or {}
                payload["model"] = message.get("model")
                payload["usage"] |= optional(dict, message, "usage") or {}
            elif kind == "content_block_start":
                blocks[str(event.get("index"))] = optional(dict, event, "content_block") or {}
            elif kind == "content_block_delta":
                block = blocks.setdefault(str(event.get("index")), {"type": "text"})
                text = optional(str, optional(dict, event, "delta"), "text") or ""
                block["text"] = (optional(str, block, "text") or "") + text
            elif kind == "message_delta":
                stop_reason = optional(str, optional(dict, event, "delta"), "stop_reason")
                payload["stop_reason"] = stop_reason or payload["stop_reason"]
                payload["usage"] |= optional(dict, event, "usage") or {}
            elif kind == "error":
                payload["error"] = event.get("error")
        return {**payload, "content": list(blocks.values())}


def _count(usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
    plain = decoration.tokens(usage, "input_tokens")
    made = decoration.tokens(usage, "output_tokens")
    read = decoration.part_of_tokens(usage, "cache_read_input_tokens")
    written = decoration.part_of_tokens(usage, "cache_creation_input_tokens")
    if plain is None:
        return Usage(None, made)
    return Usage(plain + read + written, made, read, written)
