"""Chat completions: OpenAI's, and every server that speaks its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from generation.llm.providers.base import Answer, HttpProvider
from generation.llm.providers.error_bodies import read_error
from generation.llm.providers.event_stream import BROKEN_OFF
from generation.llm.providers.parsing import UnusableReply, optional
from generation.records import Finding, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from generation.conf import Settings
    from generation.llm.providers.parsing import Decoration
    from generation.records import Prompt

# A log row has the same words for stop reasons, whichever provider answered: Anthropic's.
_STOP_REASON = {
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
_CLEAN_STOPS = frozenset({"end_turn", "max_tokens", "tool_use"})
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


class OpenAI(HttpProvider):
    name = "openai"
    default_model = "gpt-6-luna"
    idempotency_header = "idempotency-key"
    answer_key = "choices"

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

    @classmethod
    def address(cls, settings: Settings) -> str:
        return settings.openai_base_url

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
            is_new = is_official or _is_azure(settings.openai_base_url)
            self._max_tokens_field = "max_completion_tokens" if is_new else "max_tokens"

    def encode(self, prompt: Prompt, model: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt.text}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        return {
            "model": model,
            "messages": messages,
            self._max_tokens_field: prompt.max_tokens,
            "stream": False,  # some servers stream unless told
        }

    def decode(self, payload: Any, decoration: Decoration) -> Answer:
        choices = optional(list, payload, "choices")
        if choices is None:
            raise UnusableReply(f"{self.name} sent something else than a chat completion")
        choice = next((choice for choice in choices if isinstance(choice, dict)), {})
        message = optional(dict, choice, "message")
        said_reason = decoration.name(choice, "finish_reason")
        word = said_reason.partition(":")[0].strip().lower()
        answer = Answer(
            text=_read_text(message or {}, decoration),
            usage=_count(optional(dict, payload, "usage"), decoration),
            model=decoration.name(payload, "model"),
            stop_reason=_STOP_REASON.get(word, said_reason),
        )
        if optional(str, message, "refusal") and not answer.text:
            answer.stop_reason = "refusal"
        if message is None and answer.stop_reason in _CLEAN_STOPS:  # an old API's, e.g.
            raise UnusableReply(f"{self.name} sent no message", Finding.EMPTY, answer)
        self._refuse_half(choice, answer, decoration)
        answer.is_plain = (
            answer.stop_reason == "end_turn"
            and message is not None
            and not message.get("tool_calls")
            and isinstance(message.get("content"), str)
            and not decoration.doubtful
        )
        return self._require_text(answer)

    def _refuse_half(self, choice: dict[str, Any], answer: Answer, decoration: Decoration) -> None:
        """Raise `UnusableReply` for an answer that an error ended."""
        said = choice.get("error")
        error = read_error({"error": said}, 200) if said else None
        if error is None:
            return
        if answer.text and answer.stop_reason in _CLEAN_STOPS:
            decoration.doubt("error")  # it was whole all the same
            return
        raise UnusableReply(
            f"{self.name} broke off before its answer was complete",
            error.finding or Finding.BROKEN_OFF,
            answer,
        )

    def join(self, events: Iterable[Any]) -> dict[str, Any]:
        payload: dict[str, Any] = {}
        choice: dict[str, Any] = {"finish_reason": BROKEN_OFF}
        texts: list[str] = []
        message: dict[str, Any] = {}
        for event in events:
            if not isinstance(event, dict):
                continue
            payload |= {k: event[k] for k in ("model", "usage", "error") if event.get(k)}
            for part in optional(list, event, "choices") or []:
                if not isinstance(part, dict) or part.get("index"):  # of the first choice only
                    continue
                delta = optional(dict, part, "delta") or optional(dict, part, "message") or {}
                texts.append(optional(str, delta, "content") or "")
                message |= {k: delta[k] for k in ("tool_calls", "refusal") if delta.get(k)}
                choice |= {k: part[k] for k in ("finish_reason", "error") if part.get(k)}
        message["content"] = "".join(texts)
        return {**payload, "choices": [{**choice, "message": message}]}


def _is_official(url: str) -> bool:
    """Whether it is OpenAI's own API, or a regional one, e.g. eu.api.openai.com."""
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _is_azure(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(_AZURE_HOSTS)


def _read_text(message: dict[str, Any], decoration: Decoration) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is not None and not isinstance(content, list):
        decoration.doubt("content")
    texts = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif not isinstance(part, dict) or part.get("type") == "text":
            decoration.doubt("content")
    return "".join(texts)


def _count(usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
    given = decoration.tokens(usage, "prompt_tokens")
    made = decoration.tokens(usage, "completion_tokens")
    details = optional(dict, usage, "prompt_tokens_details")
    cached = decoration.part_of_tokens(details, "cached_tokens")
    return Usage(given, made, min(cached, given or 0))
