"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.errors import LLMRefused
from generation.llm.providers.base import Answer, ErrorObject, HttpProvider, is_success
from generation.llm.providers.parsing import (
    UnusableReply,
    optional,
    optional_name,
    optional_tokens,
    require,
    require_tokens,
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
_COMPLETE = frozenset({"end_turn", "stop_sequence"})


class Anthropic(HttpProvider):
    name = "anthropic"
    default_model = "claude-sonnet-5-5"
    price_list = "anthropic"

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:
        return bool(settings.anthropic_api_key.get_secret_value())

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:  # noqa: ARG003  # any target
        return "" if cls.is_configured(settings) else "ANTHROPIC_API_KEY is not set"

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
        for block in require(list, payload, "content"):
            kind = require(str, block, "type")
            kinds.add(kind)
            if kind == "text":
                texts.append(require(str, block, "text"))
        stop_reason = optional_name(payload, "stop_reason")
        if stop_reason == "refusal":
            raise UnusableReply(f"{self.name} declines to answer this prompt", LLMRefused)
        return Answer(
            text=self._require_text("".join(texts), cut_off=stop_reason == "max_tokens"),
            usage=_count(require(dict, payload, "usage")),
            model=optional_name(payload, "model"),
            stop_reason=stop_reason,
            is_plain=len(texts) == 1 and stop_reason in _COMPLETE and kinds <= _TEXT_OR_THINKING,
        )

    def decode_error(self, payload: Any, status: int) -> ErrorObject | None:
        error = optional(dict, payload, "error")
        if not error:
            return None
        by_type = _STATUS_OF_ERROR.get(optional_name(error, "type"))
        return ErrorObject(
            optional(str, error, "message") or "", by_type if is_success(status) else None
        )


def _count(usage: dict[str, Any]) -> Usage:
    read = optional_tokens(usage, "cache_read_input_tokens")
    written = optional_tokens(usage, "cache_creation_input_tokens")
    given = require_tokens(usage, "input_tokens") + read + written
    return Usage(given, require_tokens(usage, "output_tokens"), read, written)
