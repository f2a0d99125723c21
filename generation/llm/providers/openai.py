"""Chat completions: OpenAI's, and every server that speaks its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.conf import is_openai_itself
from generation.errors import LLMBadReply, LLMRefused
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

# The stop reasons of a log row are the same words whoever answered.
_STOP_REASON = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
_STATUS_OF_ERROR = {
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "invalid_api_key": 401,
    "insufficient_quota": 402,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "server_error": 500,
}


class OpenAI(HttpProvider):
    name = "openai"
    default_model = "gpt-6-luna"
    idempotency_header = "idempotency-key"

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None:
        key = settings.openai_api_key.get_secret_value()
        super().__init__(
            transport,
            url=f"{settings.openai_base_url}/chat/completions",
            headers={"authorization": f"Bearer {key}"} if key else {},
            secret=settings.openai_api_key,
            max_reply_bytes=settings.llm_max_reply_bytes,
        )
        is_official = is_openai_itself(settings.openai_base_url)
        self.price_list = "openai" if is_official else settings.openai_base_url
        self._max_tokens_field = settings.openai_max_tokens_field
        if self._max_tokens_field == "auto":
            self._max_tokens_field = "max_completion_tokens" if is_official else "max_tokens"

    def encode(self, prompt: Prompt, model: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt.text}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        return {"model": model, "messages": messages, self._max_tokens_field: prompt.max_tokens}

    def decode(self, payload: Any) -> Answer:
        choices = take(list, payload, "choices")
        if not choices:
            raise LLMBadReply(f"{self.name} sent an answer without choices")
        message = take(dict, choices[0], "message")
        stop_reason = take_word(choices[0], "finish_reason")
        stop_reason = _STOP_REASON.get(stop_reason, stop_reason)
        if take_optional(str, message, "refusal") or stop_reason == "refusal":
            raise LLMRefused(f"{self.name} declines to answer this prompt")
        usage = take_optional(dict, payload, "usage")
        return Answer(
            text=self._require_text(_read_text(message), cut_off=stop_reason == "max_tokens"),
            usage=_count(usage) if usage else Usage(0, 0),  # some such servers don't count
            model=take_word(payload, "model"),
            stop_reason=stop_reason,
            is_plain=stop_reason == "end_turn"
            and isinstance(message["content"], str)
            and not message.get("tool_calls")
            and bool(usage),
        )

    def read_complaint(self, payload: Any, status: int) -> Complaint | None:
        error = take_optional(dict, payload, "error")
        if not error:
            return None
        amounts_to = _status_of(error.get("code")) or _status_of(error.get("type"))
        is_success = status < 300  # noqa: PLR2004
        is_unpaid = amounts_to == 402  # noqa: PLR2004  # it comes as a 429, but waiting won't help
        return Complaint(
            take_optional(str, error, "message") or "",
            amounts_to if is_success or is_unpaid else None,
        )


def _read_text(message: dict[str, Any]) -> str:
    if isinstance(message.get("content"), list):
        parts = message["content"]
        return "".join(take(str, p, "text") for p in parts if take(str, p, "type") == "text")
    return take_optional(str, message, "content") or ""


def _count(usage: dict[str, Any]) -> Usage:
    prompt_tokens = take_count(usage, "prompt_tokens")
    details = take_optional(dict, usage, "prompt_tokens_details")
    cached = take_optional_count(details, "cached_tokens")
    return Usage(prompt_tokens, take_count(usage, "completion_tokens"), min(cached, prompt_tokens))


def _status_of(kind: object) -> int | None:
    if isinstance(kind, str):
        return _STATUS_OF_ERROR.get(kind)
    if isinstance(kind, int) and 400 <= kind < 600:  # noqa: PLR2004  # as routers and vLLM write it
        return kind
    return None
