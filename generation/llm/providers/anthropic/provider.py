"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from generation.llm.providers.anthropic import request, whole
from generation.llm.providers.anthropic.stream import MessageReader, count
from generation.llm.providers.http import HttpProvider

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from generation.conf import Settings
    from generation.llm.providers.base import Answer
    from generation.llm.providers.parsing import Decoration
    from generation.llm.transcript import Transcript
    from generation.records import Prompt, Usage


class Anthropic(HttpProvider):
    name = "anthropic"
    default_model = "claude-sonnet-5-5"
    price_list = "anthropic"
    answer_key = "content"
    path = "/v1/messages"
    others: ClassVar[Mapping[str, tuple[str, str]]] = {
        "count_tokens": ("/v1/messages/count_tokens", "input_tokens")
    }

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
            url=f"{settings.anthropic_base_url}{self.path}",
            headers={"x-api-key": key, "anthropic-version": "2023-06-01"},
            secret=settings.anthropic_api_key,
            max_reply_bytes=settings.llm_max_reply_bytes,
        )

    def _unknown_parameter(self, prompt: Prompt) -> str:
        return request.unknown_parameter(prompt)

    def encode(self, prompt: Prompt, model: str, *, is_streamed: bool = False) -> dict[str, Any]:
        if prompt.verbatim is not None and self.speaks(prompt):
            return _restate(prompt.verbatim.body, prompt, model, is_streamed=is_streamed)
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": prompt.max_tokens,
            "messages": request.write_messages(prompt)
            if prompt.messages
            else [{"role": "user", "content": prompt.text}],
            "stream": is_streamed,  # some compatible servers stream by default
        }
        if prompt.system:
            body["system"] = prompt.system
        return body | request.write_options(prompt)

    def decode(self, payload: Any, decoration: Decoration) -> Answer:
        return whole.decode(self.name, payload, decoration)

    def count(self, usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
        return count(usage, decoration)

    def reader(self, transcript: Transcript, decoration: Decoration) -> MessageReader:
        return MessageReader(self.name, transcript, decoration)


def _restate(
    given: Mapping[str, Any], prompt: Prompt, model: str, *, is_streamed: bool
) -> dict[str, Any]:
    """A client's own request, with model and limit as they have to be."""
    body = {**given, "model": model, "max_tokens": prompt.max_tokens, "stream": is_streamed}
    if prompt.system and given.get("system") is None:
        body["system"] = prompt.system
    return body
