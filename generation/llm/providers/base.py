"""What a provider is to the client, and what all HTTP providers share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import httpx
import orjson

from generation.llm import policy
from generation.llm.providers import event_stream
from generation.llm.providers.error_bodies import read_error, without_account
from generation.llm.providers.parsing import (
    BYTE_ORDER_MARK,
    EXCERPT_CHARS,
    GZIP,
    Decoration,
    UnusableReply,
    excerpt,
    parse_json,
    unpack,
)
from generation.records import Finding, Reply
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import SecretStr

    from generation.conf import Settings
    from generation.errors import LLMError
    from generation.llm.providers.error_bodies import ErrorObject
    from generation.records import Prompt, Usage

_SENTENCE_CHARS = 300
_UNREADABLE = frozenset({"br", "zstd", "deflate", "compress"})
_ERROR_BODY_TIMEOUT_S = 1.0  # short, because the status of an error says enough


class Provider(Protocol):
    """Something that answers prompts."""

    name: str
    url: str  # '' if it calls nothing
    default_model: str
    price_list: str  # see `Prices.cost`

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None: ...

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:
        """Whether LLM_PROVIDER=auto may choose it."""
        ...

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:
        """What has to be set before it can be called, as a clause; '' if nothing."""
        ...

    @classmethod
    def address(cls, settings: Settings) -> str:
        """Where its API is; '' if it calls nothing."""
        ...

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        """One attempt. Raises subclasses of `LLMError`, and nothing else."""
        ...


@dataclass(slots=True)
class Answer:
    """What one successful attempt brought. `model` is the name by which the provider calls it."""

    text: str
    usage: Usage
    model: str
    stop_reason: str
    is_plain: bool = True  # one complete text and nothing else; if not, the raw reply is kept
    raw_reply: str = ""


class _SecretHeaders(httpx.Headers):
    def __repr__(self) -> str:
        return "<headers with a key>"


class HttpProvider(ABC):
    """A provider with one HTTP endpoint that takes and returns JSON.

    The subclass knows the dialect. Replies are treated as hostile: capped while they are read
    and unpacked, parsed without trust.
    """

    name: str
    default_model: str
    idempotency_header: str = ""
    price_list: str
    answer_key: str  # of a reply's JSON: where the answer is

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        url: str,
        headers: Mapping[str, str],
        secret: SecretStr,
        max_reply_bytes: int,
    ) -> None:
        self._transport = transport
        self.url = url
        self._url = httpx.URL(url)
        self._headers = _SecretHeaders(
            {
                "host": self._url.netloc.decode("ascii"),
                "content-type": "application/json",
                "accept": "application/json",
                "accept-encoding": "identity",
                "user-agent": "staccato",
                **headers,
            }
        )
        self._secret = secret
        self._max_reply_bytes = max_reply_bytes

    @abstractmethod
    def encode(self, prompt: Prompt, model: str) -> dict[str, Any]:
        """The request's body."""

    @abstractmethod
    def decode(self, payload: Any, decoration: Decoration) -> Answer:
        """The answer in a body of status 2xx. Raises `UnusableReply`."""

    @abstractmethod
    def join(self, events: Iterable[Any]) -> dict[str, Any]:
        """The events of a streamed answer as the JSON that `decode` reads.

        The answer of a stream without an end stops for the reason `BROKEN_OFF`.
        """

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        try:
            content = orjson.dumps(self.encode(prompt, model))
        except orjson.JSONEncodeError:  # a lone surrogate
            raise policy.to_error(
                Finding.REJECTED, "the prompt contains text that can't be sent as UTF-8"
            ) from None
        # With `stream`, httpx leaves the headers as they are, at a third of the cost.
        request = httpx.Request(
            "POST", self._url, headers=self._headers, stream=httpx.ByteStream(content)
        )
        if self.idempotency_header:
            request.headers[self.idempotency_header] = idempotency_key
        status, headers, body = await self._exchange(request)
        answer = self._read(status, headers, body)
        if not answer.is_plain:
            answer.raw_reply = self._excerpt(body)
        answer.model = answer.model or model
        return answer

    def _require_text(self, answer: Answer) -> Answer:
        """Returns the answer. Raises `UnusableReply` if it is none."""
        if answer.stop_reason == event_stream.BROKEN_OFF:
            raise UnusableReply(
                f"{self.name} broke off before its answer was complete", Finding.BROKEN_OFF, answer
            )
        if answer.stop_reason == "refusal":
            raise UnusableReply(
                f"{self.name} declines to answer this prompt", Finding.DECLINED, answer
            )
        if answer.text:
            return answer
        if answer.stop_reason == "max_tokens":
            # Thinking counts as output, so a small limit can end before the text.
            raise UnusableReply(
                f"{self.name} reached max_tokens before any text; allow more tokens",
                Finding.CUT_OFF,
                answer,
            )
        raise UnusableReply(f"{self.name} sent an answer without text", Finding.EMPTY, answer)

    def _read(self, status: int, headers: httpx.Headers, body: bytearray) -> Answer:
        """Returns the answer. Raises the error that the reply amounts to."""
        decoration = Decoration(self._excerpt)
        try:
            payload = self._parse(headers, body, decoration)
            error = read_error(payload, status, beside_an_answer=self._holds_answer(payload))
            if error is None and policy.is_success(status):
                answer = self.decode(payload, decoration)
                if decoration.doubtful:
                    self._count_doubtful(decoration)
                return answer
        except UnusableReply as fault:
            payload = error = None
            if policy.is_success(status):
                raw_reply = self._excerpt(body)
                raise policy.to_error(
                    fault.finding,
                    str(fault),
                    status_code=status,
                    raw_reply=raw_reply,
                    partial=_as_reply(fault.answer),
                    said=self._said(raw_reply, fault.finding),
                ) from None
        raise self._failure(status, headers, body, payload, error)

    def _failure(
        self,
        status: int,
        headers: httpx.Headers,
        body: bytearray,
        payload: Any,
        error: ErrorObject | None,
    ) -> LLMError:
        """Returns the error of a reply that says it is one; `payload` is None if it is no JSON."""
        raw_reply = self._excerpt(body)
        sentence = error.message if error else "" if payload else raw_reply
        sentence = sentence or headers.get("location", "")  # a redirect
        finding = policy.find(status, error.finding if error else None)
        failure = policy.to_error(
            finding,
            f"{self.name} answered {status}{' with an error' * policy.is_success(status)}",
            status_code=status,
            raw_reply=raw_reply,
            partial=_as_reply(self._salvage(payload)) if policy.is_success(status) else None,
            said=self._said(sentence, finding),
            retry_after=policy.retry_after(headers, datetime.now(UTC)),
            should_retry=policy.should_retry(headers),
        )
        if error and error.message and policy.quotes(failure):
            quoted = without_account(self._excerpt(sentence, limit=_SENTENCE_CHARS))
            failure.detail += f": {quoted}"
        return failure

    def _parse(self, headers: httpx.Headers, body: bytearray, decoration: Decoration) -> Any:
        if body.startswith(BYTE_ORDER_MARK):
            decoration.doubt("byte order mark")
        if event_stream.is_stream(headers.get("content-type", ""), body):
            decoration.doubt("stream")  # we ask for none
            return self.join(event_stream.read(body))
        return parse_json(body)

    def _holds_answer(self, payload: Any) -> bool:
        return isinstance(payload, dict) and bool(payload.get(self.answer_key))

    def _salvage(self, payload: Any) -> Answer | None:
        """What there is of an answer beside an error."""
        try:
            return (
                self.decode(payload, Decoration(self._excerpt))
                if self._holds_answer(payload)
                else None
            )
        except UnusableReply as fault:
            return fault.answer

    def _count_doubtful(self, decoration: Decoration) -> None:
        for part in decoration.doubtful:
            metrics.LLM_DOUBTFUL.labels(self.name, part).inc()

    def _said(self, sentence: str, finding: Finding) -> str:
        """For an operator; nothing where none has to act, because it may hold the caller's text."""
        if policy.RULES[finding].logged is not policy.Logged.ALARM:
            return ""
        return self._excerpt(sentence, limit=_SENTENCE_CHARS)

    def _excerpt(self, source: bytearray | str, *, limit: int = EXCERPT_CHARS) -> str:
        return excerpt(source, self._secret.get_secret_value(), limit=limit)

    async def _exchange(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytearray]:
        """Returns the reply's status, headers and body. The body of an error may be incomplete."""
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.HTTPError as error:
            raise to_llm_error(error, self.name) from error
        stream = cast("httpx.AsyncByteStream", response.stream)
        body = bytearray()
        try:
            async with asyncio.timeout(None if response.is_success else _ERROR_BODY_TIMEOUT_S):
                await self._read_body(response, stream, body)
        except (httpx.HTTPError, TimeoutError) as error:
            if response.is_success:  # the status of an error says enough
                raise broken_reply(error, self.name, response, self._excerpt(body)) from error
        finally:
            await stream.aclose()
        return response.status_code, response.headers, body

    async def _read_body(
        self, response: httpx.Response, stream: httpx.AsyncByteStream, body: bytearray
    ) -> None:
        fault = ""
        async for chunk in stream:
            body += chunk
            if len(body) > self._max_reply_bytes:
                fault = f"{self.name} sent more than {self._max_reply_bytes} bytes"
                break
        else:
            fault = self._unpack(response.headers, body)
        if fault and response.is_success:  # the status of an error says enough
            raise policy.to_error(
                Finding.UNREADABLE,
                fault,
                status_code=response.status_code,
                raw_reply=self._excerpt(body),
            )

    def _unpack(self, headers: httpx.Headers, body: bytearray) -> str:
        """Unpack the body in place if it is compressed, though we ask for plain text.

        Returns what is wrong, or ''. The bytes decide, because some servers name an encoding
        (UTF-8, or gzip) for plain JSON.
        """
        if body.startswith(GZIP):
            try:
                body[:] = unpack(body, self._max_reply_bytes)
            except UnusableReply as fault:
                return f"{self.name}'s reply {fault}"
        encoding = headers.get("content-encoding", "").lower()
        if encoding in _UNREADABLE and not body.startswith((b"{", b"[")):
            return f"{self.name} sent a reply that is compressed by {encoding}"
        return ""


def _as_reply(answer: Answer | None) -> Reply | None:
    """What was paid for, if any of it is known."""
    if answer is None or not (answer.text or answer.usage.known_tokens):
        return None
    return Reply(answer.text, answer.usage, answer.stop_reason)


def _root_cause(error: BaseException) -> str:
    """The operating system's message, at the end of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def to_llm_error(error: Exception, name: str) -> LLMError:
    """What the transport's exception means. Its text may contain addresses, so don't quote it."""
    if isinstance(error, httpx.ConnectTimeout):
        return policy.to_error(Finding.UNREACHABLE, f"{name} did not accept a connection in time")
    if isinstance(error, httpx.TimeoutException):
        return policy.to_error(Finding.TIMED_OUT, f"{name} did not answer in time")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return policy.to_error(
            Finding.UNSENDABLE, f"the request to {name} can't be sent with the present settings"
        )
    if isinstance(error, httpx.ProxyError):
        return policy.to_error(
            Finding.PROXY, f"the proxy refuses the connection to {name}", said=str(error)
        )
    said = _root_cause(error)
    if isinstance(error, httpx.ConnectError):
        return policy.to_error(Finding.UNREACHABLE, f"no connection to {name}", said=said)
    return policy.to_error(
        Finding.FAILED, f"{name} closed the connection before it answered", said=said
    )


def broken_reply(error: Exception, name: str, response: httpx.Response, raw_reply: str) -> LLMError:
    """What it means that a reply of status 2xx did not arrive whole."""
    facts: dict[str, Any] = {"status_code": response.status_code, "raw_reply": raw_reply}
    if isinstance(error, httpx.TimeoutException):
        return policy.to_error(Finding.TIMED_OUT, f"{name} did not answer in time", **facts)
    finding = Finding.BROKEN_OFF if raw_reply.strip() else Finding.FAILED
    return policy.to_error(
        finding, f"{name} closed the connection before its answer was complete", **facts
    )
