"""What every provider is to the client, and what the HTTP ones among them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
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
from generation.llm.reading import excerpt, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.records import Prompt, Reply


class Provider(Protocol):
    """Something that answers prompts. `ask` raises subclasses of `LLMError`, and nothing else."""

    name: str
    default_model: str
    price_list: str  # as `Prices.cost` takes it

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Reply:
        """One attempt. The reply's attempts and cost are left for the client to fill in."""
        ...


@dataclass(frozen=True, slots=True)
class Complaint:
    """A provider's error object: its sentence, and the HTTP status it amounts to.

    None: the status it came with says enough.
    """

    message: str
    status: int | None = None


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
        secret: str,
        max_reply_bytes: int,
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(url)
        self._headers = httpx.Headers(
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
    def decode(self, payload: object, model: str) -> tuple[Reply, bool]:
        """The answer in a body of status 2xx, and whether it is a whole and plain one.

        Raises `LLMBadReply`, `LLMRefused`.
        """

    @abstractmethod
    def read_complaint(self, payload: object, status: int) -> Complaint | None:
        """The error object in a body, whatever the status; None where there is none."""

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Reply:
        request = httpx.Request(
            "POST",
            self._url,
            headers=self._headers,
            content=orjson.dumps(self.encode(prompt, model)),
        )
        if self.idempotency_header:
            request.headers[self.idempotency_header] = idempotency_key
        body = bytearray()  # outside, so that what was read of a broken reply is kept
        try:
            status, headers = await self._exchange(request, body)
            reply, is_plain = self._read(status, headers, bytes(body), model)
        except LLMError as error:
            error.raw_reply = excerpt(body, self._secret)
            raise
        return reply if is_plain else replace(reply, raw_reply=excerpt(body, self._secret))

    def _require_text(self, text: str, *, cut_off: bool) -> None:
        if text:
            return
        if cut_off:  # thinking counts as output, so a small limit can end before the text
            raise LLMRefused(f"{self.name} reached max_tokens before any text; allow it more")
        raise LLMBadReply(f"{self.name} sent an answer without text")

    def _read(
        self, status: int, headers: httpx.Headers, body: bytes, model: str
    ) -> tuple[Reply, bool]:
        is_success = 200 <= status < 300  # noqa: PLR2004
        try:
            payload = parse_json(body)
        except LLMBadReply:
            if is_success:
                raise
            payload = None
        complaint = self.read_complaint(payload, status)
        if not is_success or complaint is not None:
            raise self._error(status, headers, complaint)
        try:
            return self.decode(payload, model)
        except LLMError as error:
            error.status_code = status
            raise

    def _error(self, status: int, headers: httpx.Headers, complaint: Complaint | None) -> LLMError:
        kind = policy.classify((complaint and complaint.status) or status)
        detail = f"{self.name} answered {status}"
        # Only where the caller can act on it is the provider's sentence passed on.
        if complaint is not None and issubclass(kind, LLMRefused):
            detail = f"{detail}: {excerpt(complaint.message.encode(), self._secret, limit=300)}"
        return kind(
            detail,
            status_code=status,
            retry_after=policy.retry_after(headers, datetime.now(UTC)),
            should_retry=policy.should_retry(headers),
        )

    async def _exchange(self, request: httpx.Request, body: bytearray) -> tuple[int, httpx.Headers]:
        """Send the request, read the reply's body into `body`, give its status and headers."""
        try:
            response = await self._transport.handle_async_request(request)
            stream = cast("httpx.AsyncByteStream", response.stream)
            try:
                await self._read_body(response, stream, body)
            finally:
                await stream.aclose()
        except httpx.HTTPError as error:
            raise _translate(error, self.name) from error
        return response.status_code, response.headers

    async def _read_body(
        self, response: httpx.Response, stream: httpx.AsyncByteStream, body: bytearray
    ) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":  # we asked for none: no bomb is ever unpacked
            raise LLMBadReply(
                f"{self.name} sent a compressed reply unasked",
                status_code=response.status_code,
                should_retry=False,
            )
        async for chunk in stream:
            body += chunk
            if len(body) > self._max_reply_bytes:
                raise LLMBadReply(
                    f"{self.name} sent more than {self._max_reply_bytes} bytes",
                    status_code=response.status_code,
                    should_retry=False,
                )


def _translate(error: httpx.HTTPError, name: str) -> LLMError:
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
