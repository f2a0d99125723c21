"""Chat completions: OpenAI's, and every server that speaks its protocol."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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

# A log row has the same words for stop reasons, whichever provider answered: Anthropic's.
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

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:
        return bool(settings.openai_api_key.get_secret_value())

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:
        if _is_official(settings.openai_base_url):
            return "" if cls.is_configured(settings) else "OPENAI_API_KEY is not set"
        if is_default and not settings.llm_model:  # other servers often need no key
            return "LLM_MODEL is not set (models at OPENAI_BASE_URL vary)"
        return ""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None:
        key = settings.openai_api_key.get_secret_value()
        super().__init__(
            transport,
            url=f"{settings.openai_base_url}/chat/completions",
            headers={"authorization": f"Bearer {key}"} if key else {},
            secret=settings.openai_api_key,
            max_reply_bytes=settings.llm_max_reply_bytes,
        )
        is_official = _is_official(settings.openai_base_url)
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
        choices = require(list, payload, "choices")
        if not choices:
            raise UnusableReply(f"{self.name} sent an answer without choices")
        message = require(dict, choices[0], "message")
        stop_reason = optional_name(choices[0], "finish_reason")
        stop_reason = _STOP_REASON.get(stop_reason, stop_reason)
        if optional(str, message, "refusal") or stop_reason == "refusal":
            raise UnusableReply(f"{self.name} declines to answer this prompt", LLMRefused)
        usage = optional(dict, payload, "usage")
        return Answer(
            text=self._require_text(_read_text(message), cut_off=stop_reason == "max_tokens"),
            usage=_count(usage) if usage else Usage(0, 0),  # some compatible servers don't count
            model=optional_name(payload, "model"),
            stop_reason=stop_reason,
            is_plain=stop_reason == "end_turn"
            and isinstance(message["content"], str)
            and not message.get("tool_calls")
            and bool(usage),
        )

    def decode_error(self, payload: Any, status: int) -> ErrorObject | None:
        error = optional(dict, payload, "error")
        if not error:
            return None
        by_code = _status_of(error.get("code")) or _status_of(error.get("type"))
        is_unpaid = by_code == HTTPStatus.PAYMENT_REQUIRED  # sent as 429, but waiting won't help
        return ErrorObject(
            optional(str, error, "message") or "",
            by_code if is_success(status) or is_unpaid else None,
        )


def _is_official(url: str) -> bool:
    """Whether it is OpenAI's own API, or a regional one, e.g. eu.api.openai.com."""
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _read_text(message: dict[str, Any]) -> str:
    if isinstance(message.get("content"), list):
        parts = message["content"]
        return "".join(require(str, p, "text") for p in parts if require(str, p, "type") == "text")
    return optional(str, message, "content") or ""


def _count(usage: dict[str, Any]) -> Usage:
    prompt_tokens = require_tokens(usage, "prompt_tokens")
    details = optional(dict, usage, "prompt_tokens_details")
    cached = optional_tokens(details, "cached_tokens")
    return Usage(
        prompt_tokens, require_tokens(usage, "completion_tokens"), min(cached, prompt_tokens)
    )


def _status_of(kind: object) -> int | None:
    if isinstance(kind, str):
        return _STATUS_OF_ERROR.get(kind)
    if isinstance(kind, int) and 400 <= kind < 600:  # routers and vLLM put it here
        return kind
    return None
