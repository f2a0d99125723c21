"""What a provider is to the client, and what all HTTP providers share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import httpx
import orjson

from generation.errors import (
    LLMBadReply,
    LLMError,
    LLMMisconfigured,
    LLMRefused,
    LLMTimedOut,
    LLMUnreachable,
)
from generation.llm import policy
from generation.llm.providers.parsing import EXCERPT_CHARS, UnusableReply, excerpt, parse_json
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from generation.conf import Settings
    from generation.records import Prompt, Usage

logger = throttled_logger(__name__)

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


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """The error in a provider's reply. `status` overrules the HTTP status that it came with."""

    message: str
    status: int | None = None


class _SecretHeaders(httpx.Headers):
    def __repr__(self) -> str:
        return "<headers with a key>"


class HttpProvider(ABC):
    """A provider with one HTTP endpoint that takes and returns JSON.

    The subclass knows the dialect. Replies are treated as hostile: capped while they are read,
    rejected if they are compressed, parsed without trust.
    """

    name: str
    default_model: str
    idempotency_header: str = ""
    price_list: str

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
    def decode(self, payload: Any) -> Answer:
        """The answer in a body of status 2xx. Raises `UnusableReply`."""

    @abstractmethod
    def decode_error(self, payload: Any, status: int) -> ErrorObject | None:
        """The error in a body of any status; None if there is none. Raises `UnusableReply`."""

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        try:
            content = orjson.dumps(self.encode(prompt, model))
        except orjson.JSONEncodeError:  # a lone surrogate
            raise LLMRefused("the prompt contains text that can't be sent as UTF-8") from None
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

    def _require_text(self, text: str, *, cut_off: bool) -> str:
        if text:
            return text
        if cut_off:  # thinking counts as output, so a small limit can end before the text
            raise UnusableReply(
                f"{self.name} reached max_tokens before any text; allow more tokens", LLMRefused
            )
        raise UnusableReply(f"{self.name} sent an answer without text")

    def _read(self, status: int, headers: httpx.Headers, body: bytearray) -> Answer:
        try:
            payload = parse_json(body)
            error = self.decode_error(payload, status)
            if error is None and is_success(status):
                return self.decode(payload)
        except UnusableReply as fault:
            if is_success(status):
                raise fault.kind(
                    str(fault), status_code=status, raw_reply=self._excerpt(body)
                ) from None
            error = None  # e.g. the page of a proxy; the status says enough
        kind = policy.classify((error.status if error else None) or status)
        detail = f"{self.name} answered {status}"
        if error is not None and issubclass(kind, LLMRefused):  # the caller can act on it
            detail = f"{detail}: {self._excerpt(error.message, limit=300)}"
        raise kind(
            detail,
            status_code=status,
            retry_after=policy.retry_after(headers, datetime.now(UTC)),
            should_retry=policy.should_retry(headers),
            raw_reply=self._excerpt(body),
        )

    def _excerpt(self, source: bytearray | str, *, limit: int = EXCERPT_CHARS) -> str:
        return excerpt(source, self._secret.get_secret_value(), limit=limit)

    async def _exchange(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytearray]:
        """Returns the reply's status, headers and body. The body of an error may be incomplete."""
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.HTTPError as error:
            logger.warning("%s at %s: %s", self.name, self.url, _root_cause(error))
            raise to_llm_error(error, self.name) from error
        stream = cast("httpx.AsyncByteStream", response.stream)
        body = bytearray()
        try:
            async with asyncio.timeout(None if response.is_success else _ERROR_BODY_TIMEOUT_S):
                await self._read_body(response, stream, body)
        except (httpx.HTTPError, TimeoutError) as error:
            if response.is_success:  # the status of an error says enough
                raise to_llm_error(error, self.name, self._excerpt(body)) from error
        finally:
            await stream.aclose()
        return response.status_code, response.headers, body

    async def _read_body(
        self, response: httpx.Response, stream: httpx.AsyncByteStream, body: bytearray
    ) -> None:
        fault = ""
        if response.headers.get("content-encoding", "identity") != "identity":
            fault = f"{self.name} sent a compressed reply unasked"  # it might be a bomb
        else:
            async for chunk in stream:
                body += chunk
                if len(body) > self._max_reply_bytes:
                    fault = f"{self.name} sent more than {self._max_reply_bytes} bytes"
                    break
        if fault and response.is_success:  # the status of an error says enough
            raise LLMBadReply(
                fault,
                status_code=response.status_code,
                should_retry=False,
                raw_reply=self._excerpt(body),
            )


def is_success(status: int) -> bool:
    return 200 <= status < 300  # 2xx


def _root_cause(error: BaseException) -> str:
    """The operating system's message, at the end of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def to_llm_error(error: Exception, name: str, raw_reply: str = "") -> LLMError:
    """What the transport's exception means. Its text may contain addresses, so don't quote it."""
    if isinstance(error, httpx.ConnectTimeout):
        return LLMUnreachable(f"{name} did not accept a connection in time")
    if isinstance(error, httpx.TimeoutException):
        return LLMTimedOut(f"{name} did not answer in time", raw_reply=raw_reply)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return LLMMisconfigured(f"the request to {name} can't be sent with the present settings")
    if isinstance(error, httpx.ProxyError):
        return LLMMisconfigured(f"the proxy refuses the connection to {name}")
    if isinstance(error, httpx.ConnectError):
        return LLMUnreachable(f"no connection to {name}")
    return LLMUnreachable(
        f"{name} closed the connection before its answer was complete", raw_reply=raw_reply
    )
