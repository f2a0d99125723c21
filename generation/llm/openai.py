"""Chat completions: OpenAI's, and every server that speaks its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.conf import OFFICIAL_OPENAI_URL
from generation.errors import LLMBadReply, LLMRefused
from generation.llm.provider import Complaint, HttpProvider
from generation.llm.reading import Count, Shape, Word, fit
from generation.records import Reply, Usage

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


class _Part(Shape):
    type: str
    text: str = ""


class _ChatMessage(Shape):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(Shape):
    message: _ChatMessage
    finish_reason: Word | None = None


class _TokenDetails(Shape):
    cached_tokens: Count | None = None


class _Usage(Shape):
    prompt_tokens: Count
    completion_tokens: Count
    prompt_tokens_details: _TokenDetails | None = None


class _Completion(Shape):
    model: Word | None = None
    choices: list[_Choice]
    usage: _Usage | None = None


class _ErrorObject(Shape):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class _ErrorReply(Shape):
    error: _ErrorObject


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
            secret=key,
            max_reply_bytes=settings.llm_max_reply_bytes,
        )
        self.price_list = settings.openai_base_url
        self._max_tokens_field = settings.openai_max_tokens_field
        if self._max_tokens_field == "auto":
            is_official = settings.openai_base_url == OFFICIAL_OPENAI_URL
            self._max_tokens_field = "max_completion_tokens" if is_official else "max_tokens"

    def encode(self, prompt: Prompt, model: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt.text}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        return {"model": model, "messages": messages, self._max_tokens_field: prompt.max_tokens}

    def decode(self, payload: object, model: str) -> tuple[Reply, bool]:
        completion = fit(_Completion, payload)
        if not completion.choices:
            raise LLMBadReply(f"{self.name} sent an answer without choices")
        choice = completion.choices[0]
        stop_reason = choice.finish_reason or ""
        stop_reason = _STOP_REASON.get(stop_reason, stop_reason)
        if choice.message.refusal or stop_reason == "refusal":
            raise LLMRefused(f"{self.name} declines to answer this prompt")
        text = _join(choice.message.content)
        self._require_text(text, cut_off=stop_reason == "max_tokens")
        reply = Reply(
            text=text,
            usage=_count(completion.usage),
            provider=self.name,
            model=completion.model or model,
            stop_reason=stop_reason,
            attempts=(),
        )
        is_plain = (
            stop_reason == "end_turn"
            and isinstance(choice.message.content, str)
            and not choice.message.tool_calls
            and completion.usage is not None
        )
        return reply, is_plain

    def read_complaint(self, payload: object, status: int) -> Complaint | None:
        if not isinstance(payload, dict) or not payload.get("error"):
            return None
        try:
            error = fit(_ErrorReply, payload).error
        except LLMBadReply:
            return Complaint("")
        is_success = status < 300  # noqa: PLR2004
        amounts_to = _amounts_to(error)
        if not is_success and amounts_to != 402:  # noqa: PLR2004  # sent as a 429
            amounts_to = None
        return Complaint(error.message or "", amounts_to)


def _join(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text for part in content if part.type == "text")
    return content or ""


def _count(usage: _Usage | None) -> Usage:
    if usage is None:  # some servers of this protocol don't count
        return Usage(0, 0)
    details = usage.prompt_tokens_details
    cached = (details and details.cached_tokens) or 0
    cached = min(cached, usage.prompt_tokens)
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached)


def _amounts_to(error: _ErrorObject) -> int | None:
    if isinstance(error.code, int):
        return error.code if 400 <= error.code < 600 else None  # noqa: PLR2004
    return _STATUS_OF_ERROR.get(error.code or "") or _STATUS_OF_ERROR.get(error.type or "")
