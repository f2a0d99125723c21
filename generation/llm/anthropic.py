"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.errors import LLMBadReply, LLMRefused
from generation.llm.provider import Complaint, HttpProvider
from generation.llm.reading import Count, Shape, Word, fit
from generation.records import Reply, Usage

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


class _Block(Shape):
    type: str
    text: str = ""


class _Usage(Shape):
    input_tokens: Count
    output_tokens: Count
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None


class _Message(Shape):
    model: Word
    content: list[_Block]
    stop_reason: Word | None = None
    usage: _Usage


class _ErrorObject(Shape):
    type: str = ""
    message: str = ""


class _ErrorReply(Shape):
    error: _ErrorObject


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
            secret=key,
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

    def decode(self, payload: object, model: str) -> tuple[Reply, bool]:
        message = fit(_Message, payload)
        texts = [block.text for block in message.content if block.type == "text"]
        text = "".join(texts)
        if message.stop_reason == "refusal":
            raise LLMRefused(f"{self.name} declines to answer this prompt")
        self._require_text(text, cut_off=message.stop_reason == "max_tokens")
        usage = message.usage
        read = usage.cache_read_input_tokens or 0
        written = usage.cache_creation_input_tokens or 0
        reply = Reply(
            text=text,
            usage=Usage(usage.input_tokens + read + written, usage.output_tokens, read, written),
            provider=self.name,
            model=message.model or model,
            stop_reason=message.stop_reason or "",
            attempts=(),
        )
        others = sum(block.type not in _TEXT_OR_THINKING for block in message.content)
        return reply, len(texts) == 1 and not others and message.stop_reason in _WHOLE

    def read_complaint(self, payload: object, status: int) -> Complaint | None:
        if not isinstance(payload, dict) or not payload.get("error"):
            return None
        try:
            error = fit(_ErrorReply, payload).error
        except LLMBadReply:
            return Complaint("")
        is_success = status < 300  # noqa: PLR2004
        return Complaint(error.message, _STATUS_OF_ERROR.get(error.type) if is_success else None)
