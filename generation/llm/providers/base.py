"""What every provider is to the client, and what the HTTP ones among them share."""

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
from generation.llm.providers.parsing import EXCERPT_CHARS, excerpt, parse_json
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from generation.records import Prompt, Usage

logger = throttled_logger(__name__)

_COMPLAINT_S = 1.0  # longest wait for the body of an error, whose status says enough


class Provider(Protocol):
    """Something that answers prompts."""

    name: str
    url: str  # '' where nothing is called
    default_model: str
    price_list: str  # as `Prices.cost` takes it

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        """One attempt. Raises subclasses of `LLMError`, and nothing else."""
        ...


@dataclass(slots=True)
class Answer:
    """What one attempt brought. `model` is the provider's word for what answered."""

    text: str
    usage: Usage
    model: str
    stop_reason: str
    is_plain: bool = True  # one whole text and nothing else; otherwise the raw reply is kept
    raw_reply: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A provider's error object: its sentence, and the HTTP status it amounts to.

    None: the status it came with says enough.
    """

    message: str
    status: int | None = None


class _Headers(httpx.Headers):
    def __repr__(self) -> str:
        return "<headers with a key>"


class HttpProvider(ABC):
    """A provider behind one HTTP endpoint that takes and gives JSON.

    The subclass knows the dialect; what is here holds for all of them. Replies are taken as
    hostile: capped while they are read, refused when compressed, parsed without trust.
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
        self._headers = _Headers(
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
        """The answer in a body of status 2xx. Raises `LLMBadReply`, `LLMRefused`."""

    @abstractmethod
    def read_complaint(self, payload: Any, status: int) -> Complaint | None:
        """The error object in a body, whatever the status; None where there is none."""

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        try:
            content = orjson.dumps(self.encode(prompt, model))
        except orjson.JSONEncodeError:  # a lone surrogate
            raise LLMRefused("the prompt holds text that can't be sent") from None
        # With `stream` httpx leaves the headers as they are, at a third of the cost.
        request = httpx.Request(
            "POST", self._url, headers=self._headers, stream=httpx.ByteStream(content)
        )
        if self.idempotency_header:
            request.headers[self.idempotency_header] = idempotency_key
        body = bytearray()  # outside, so that what was read of a broken reply is kept
        try:
            status, headers = await self._exchange(request, body)
            answer = self._read(status, headers, body)
        except LLMError as error:
            error.raw_reply = self._excerpt(body)
            raise
        if not answer.is_plain:
            answer.raw_reply = self._excerpt(body)
        answer.model = answer.model or model
        return answer

    def _require_text(self, text: str, *, cut_off: bool) -> str:
        if text:
            return text
        if cut_off:  # thinking counts as output, so a small limit can end before the text
            raise LLMRefused(f"{self.name} reached max_tokens before any text; allow it more")
        raise LLMBadReply(f"{self.name} sent an answer without text")

    def _read(self, status: int, headers: httpx.Headers, body: bytearray) -> Answer:
        is_success = 200 <= status < 300  # noqa: PLR2004
        try:
            payload = parse_json(body)
            complaint = self.read_complaint(payload, status)
            if is_success and complaint is None:
                return self.decode(payload)
        except LLMError as error:
            if is_success:
                error.status_code = status
                raise
            complaint = None  # a proxy's page, say; the status speaks for itself
        raise self._error(status, headers, complaint)

    def _error(self, status: int, headers: httpx.Headers, complaint: Complaint | None) -> LLMError:
        kind = policy.classify((complaint.status if complaint else None) or status)
        detail = f"{self.name} answered {status}"
        # Only where the caller can act on it is the provider's sentence passed on.
        if complaint is not None and issubclass(kind, LLMRefused):
            detail = f"{detail}: {self._excerpt(complaint.message, limit=300)}"
        return kind(
            detail,
            status_code=status,
            retry_after=policy.retry_after(headers, datetime.now(UTC)),
            should_retry=policy.should_retry(headers),
        )

    def _excerpt(self, source: bytearray | str, *, limit: int = EXCERPT_CHARS) -> str:
        return excerpt(source, self._secret.get_secret_value(), limit=limit)

    async def _exchange(self, request: httpx.Request, body: bytearray) -> tuple[int, httpx.Headers]:
        """Send the request, read the reply's body into `body`, give its status and headers."""
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.HTTPError as error:
            logger.warning("%s at %s: %s", self.name, self.url, _root(error))
            raise _translate(error, self.name) from error
        stream = cast("httpx.AsyncByteStream", response.stream)
        try:
            async with asyncio.timeout(None if response.is_success else _COMPLAINT_S):
                await self._read_body(response, stream, body)
        except (httpx.HTTPError, TimeoutError) as error:
            if response.is_success:  # otherwise the status says enough
                raise _translate(error, self.name) from error
        finally:
            await stream.aclose()
        return response.status_code, response.headers

    async def _read_body(
        self, response: httpx.Response, stream: httpx.AsyncByteStream, body: bytearray
    ) -> None:
        fault = ""
        if response.headers.get("content-encoding", "identity") != "identity":
            fault = f"{self.name} sent a compressed reply unasked"  # no bomb is ever unpacked
        else:
            async for chunk in stream:
                body += chunk
                if len(body) > self._max_reply_bytes:
                    fault = f"{self.name} sent more than {self._max_reply_bytes} bytes"
                    break
        if fault and response.is_success:  # otherwise the status says enough
            raise LLMBadReply(fault, status_code=response.status_code, should_retry=False)


def _root(error: BaseException) -> str:
    """What the operating system said, which stands at the end of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _translate(error: Exception, name: str) -> LLMError:
    """What the transport's exception means. Its text may hold addresses, so it is not quoted."""
    if isinstance(error, httpx.ConnectTimeout):
        return LLMUnreachable(f"{name} did not accept a connection in time")
    if isinstance(error, httpx.TimeoutException):
        return LLMTimedOut(f"{name} did not answer in time")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return LLMMisconfigured(f"the request to {name} can't be sent as it is set up")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return LLMUnreachable(f"no connection to {name}")
    return LLMUnreachable(f"{name} broke the connection before its answer was whole")
