"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.errors import LLMRefused
from generation.llm.providers.base import Answer, Complaint, HttpProvider
from generation.llm.providers.parsing import (
    take,
    take_count,
    take_optional,
    take_optional_count,
    take_word,
)
from generation.records import Usage

if TYPE_CHECKING:
    import httpx

    from generation.conf import Settings
    from generation.records import Prompt

_STATUS_OF_ERROR = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TEXT_OR_THINKING = frozenset({"text", "thinking", "redacted_thinking"})
_WHOLE = frozenset({"end_turn", "stop_sequence"})


class Anthropic(HttpProvider):
    name = "anthropic"
    default_model = "claude-sonnet-5-5"
    price_list = "anthropic"

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
        }
        if prompt.system:
            body["system"] = prompt.system
        return body

    def decode(self, payload: Any) -> Answer:
        texts, kinds = [], set()
        for block in take(list, payload, "content"):
            kind = take(str, block, "type")
            kinds.add(kind)
            if kind == "text":
                texts.append(take(str, block, "text"))
        stop_reason = take_word(payload, "stop_reason")
        if stop_reason == "refusal":
            raise LLMRefused(f"{self.name} declines to answer this prompt")
        return Answer(
            text=self._require_text("".join(texts), cut_off=stop_reason == "max_tokens"),
            usage=_count(take(dict, payload, "usage")),
            model=take_word(payload, "model"),
            stop_reason=stop_reason,
            is_plain=len(texts) == 1 and stop_reason in _WHOLE and kinds <= _TEXT_OR_THINKING,
        )

    def read_complaint(self, payload: Any, status: int) -> Complaint | None:
        error = take_optional(dict, payload, "error")
        if not error:
            return None
        amounts_to = _STATUS_OF_ERROR.get(take_word(error, "type"))
        is_success = status < 300  # noqa: PLR2004
        return Complaint(
            take_optional(str, error, "message") or "", amounts_to if is_success else None
        )


def _count(usage: dict[str, Any]) -> Usage:
    read = take_optional_count(usage, "cache_read_input_tokens")
    written = take_optional_count(usage, "cache_creation_input_tokens")
    given = take_count(usage, "input_tokens") + read + written
    return Usage(given, take_count(usage, "output_tokens"), read, written)
