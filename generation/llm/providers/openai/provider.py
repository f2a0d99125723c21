"""Chat completions: OpenAI's, and every server that speaks its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from generation.errors import LLMError
from generation.llm.providers.http import HttpProvider
from generation.llm.providers.openai import request, whole
from generation.llm.providers.openai.stream import ChatReader, count

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from generation.conf import Settings
    from generation.llm.providers.base import Answer
    from generation.llm.providers.parsing import Decoration
    from generation.llm.streamed_attempt import StreamedAttempt
    from generation.llm.transcript import Transcript
    from generation.records import Prompt, Usage

_SET_BY_US = frozenset({"max_tokens", "max_completion_tokens", "stream_options"})
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


class OpenAI(HttpProvider):
    name = "openai"
    default_model = "gpt-6-luna"
    idempotency_header = "idempotency-key"
    answer_key = "choices"
    path = "/chat/completions"
    others: ClassVar[Mapping[str, tuple[str, str]]] = {"embeddings": ("/embeddings", "data")}

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
            url=f"{settings.openai_base_url}{self.path}",
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

        self._is_official = is_official
        self._asks_usage = True  # of streams, until the server refuses that

    def _unknown_parameter(self, prompt: Prompt) -> str:
        return request.unknown_parameter(prompt, is_official=self._is_official)

    def encode(self, prompt: Prompt, model: str, *, is_streamed: bool = False) -> dict[str, Any]:
        if prompt.verbatim is not None and self.speaks(prompt):
            return self._restate(prompt.verbatim.body, prompt, model, is_streamed=is_streamed)
        if prompt.messages:
            messages = request.write_messages(prompt)
        else:
            messages = [{"role": "user", "content": prompt.text}]
            if prompt.system:
                messages.insert(0, {"role": "system", "content": prompt.system})
        body = {
            "model": model,
            "messages": messages,
            self._max_tokens_field: prompt.max_tokens,
            "stream": is_streamed,  # some servers stream by default
        }
        if is_streamed and self._asks_usage:
            body["stream_options"] = {"include_usage": True}
        return body | request.write_options(prompt)

    def _restate(
        self, given: Mapping[str, Any], prompt: Prompt, model: str, *, is_streamed: bool
    ) -> dict[str, Any]:
        """A client's own request, with model, limit and usage as they have to be."""
        body = {name: value for name, value in given.items() if name not in _SET_BY_US}
        body |= {
            "model": model,
            self._max_tokens_field: prompt.max_tokens,
            "stream": is_streamed,
        }
        if is_streamed and self._asks_usage:
            body["stream_options"] = {
                **(given.get("stream_options") or {}),
                "include_usage": True,
            }
        if prompt.system and not any(map(_instructs, given["messages"])):
            body["messages"] = [{"role": "system", "content": prompt.system}, *given["messages"]]
        return body

    def decode(self, payload: Any, decoration: Decoration) -> Answer:
        return whole.decode(self.name, payload, decoration)

    def count(self, usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
        return count(usage, decoration)

    def reader(self, transcript: Transcript, decoration: Decoration) -> ChatReader:
        return ChatReader(self.name, transcript, decoration)

    async def stream(
        self, prompt: Prompt, model: str, idempotency_key: str, attempt: StreamedAttempt
    ) -> Answer:
        try:
            return await super().stream(prompt, model, idempotency_key, attempt)
        except LLMError as error:
            if not (self._asks_usage and _refuses_stream_options(error)):
                raise
        self._asks_usage = False
        return await super().stream(prompt, model, idempotency_key, attempt)


def _instructs(message: Mapping[str, Any]) -> bool:
    return message.get("role") in {"system", "developer"}


def _refuses_stream_options(error: LLMError) -> bool:
    return error.status_code in {400, 422} and any(
        word in error.raw_reply for word in ("stream_options", "include_usage")
    )


def _is_official(url: str) -> bool:
    """Whether it is OpenAI's own API, or a regional one, e.g. eu.api.openai.com."""
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _is_azure(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(_AZURE_HOSTS)
