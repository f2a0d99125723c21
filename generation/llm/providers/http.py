"""What all HTTP providers share: one endpoint that takes JSON and answers with JSON or a stream."""

from __future__ import annotations

import asyncio
import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import httpx
import orjson

from generation.errors import LLMError
from generation.llm import policy
from generation.llm.providers import sse
from generation.llm.providers.dialect import Dialect
from generation.llm.providers.following import Follower
from generation.llm.providers.parsing import (
    BYTE_ORDER_MARK,
    GZIP,
    Decoration,
    UnusableReply,
    require_text,
    unpack,
)
from generation.llm.providers.stream_reader import ErrorEvent
from generation.llm.providers.transport_errors import broken_reply, to_llm_error
from generation.llm.transport.body import Body, body_of
from generation.records import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from generation.llm.providers.base import Answer
    from generation.llm.streamed_attempt import StreamedAttempt
    from generation.records import Prompt, Verbatim

_UNREADABLE = frozenset({"br", "zstd", "deflate", "compress"})
_ERROR_BODY_TIMEOUT_S = 1.0  # short, because the status of an error says enough


class _SecretHeaders(httpx.Headers):
    def __repr__(self) -> str:
        return "<headers with a key>"


class HttpProvider(Dialect):
    """A provider with one HTTP endpoint that takes JSON and returns JSON or a stream of it.

    Replies are treated as hostile: capped while they are read and unpacked.
    """

    default_model: str
    idempotency_header: str = ""
    price_list: str
    path: str  # of the service that answers conversations
    # Its other services by our names for them: the path, and where the reply has its answer.
    others: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({})

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

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        verbatim = prompt.verbatim
        if verbatim is not None and verbatim.path:
            return await self._ask_other(prompt, verbatim, model, idempotency_key)
        response = await self._send(prompt, self.encode(prompt, model), idempotency_key)
        stream = cast("httpx.AsyncByteStream", response.stream)
        try:
            return await self._read_whole(response, stream, bytearray(), model)
        except LLMError as error:
            return self._settle(prompt, model, error)
        finally:
            await stream.aclose()

    async def _ask_other(
        self, prompt: Prompt, verbatim: Verbatim, model: str, idempotency_key: str
    ) -> Answer:
        """Pass a request on to another service of the provider's."""
        path, key = self.others[verbatim.path]
        url = httpx.URL(self.url.removesuffix(self.path) + path)
        response = await self._send(prompt, {**verbatim.body, "model": model}, idempotency_key, url)
        stream = cast("httpx.AsyncByteStream", response.stream)
        body = bytearray()
        try:
            await self._exhaust(response, stream, body)
            answer = self._read_other(response.status_code, response.headers, body, key)
            answer.model = answer.model or model
        except LLMError as error:
            return self._settle(prompt, model, error)
        else:
            return answer
        finally:
            await stream.aclose()

    async def stream(
        self, prompt: Prompt, model: str, idempotency_key: str, attempt: StreamedAttempt
    ) -> Answer:
        content = self.encode(prompt, model, is_streamed=True)
        response = await self._send(prompt, content, idempotency_key)
        stream = body_of(response)
        try:
            start = await self._read_start(response, stream)
            content_type = response.headers.get("content-type", "")
            if response.is_success and sse.is_stream(content_type, start):
                return await self._read_stream(response, stream, bytes(start), attempt)
            answer = await self._read_whole(response, stream, start, model)
            await attempt.put_whole(answer)
        except LLMError as error:
            return self._settle(prompt, model, error)
        else:
            return answer
        finally:
            await stream.aclose()

    async def _send(
        self,
        prompt: Prompt,
        body: dict[str, Any],
        idempotency_key: str,
        url: httpx.URL | None = None,
    ) -> httpx.Response:
        """Returns the response, whose body is not read yet."""
        try:
            content = orjson.dumps(body)
        except orjson.JSONEncodeError:  # a lone surrogate
            raise policy.to_error(
                Finding.REJECTED, "the prompt contains text that can't be sent as UTF-8"
            ) from None
        # With `stream`, httpx leaves the headers as they are, at a third of the cost.
        request = httpx.Request(
            "POST",
            url or self._url,
            headers=self._headers,
            stream=httpx.ByteStream(content),
        )
        if self.idempotency_header:
            request.headers[self.idempotency_header] = idempotency_key
        if prompt.verbatim is not None and self.speaks(prompt):
            request.headers.update(prompt.verbatim.headers)
        try:
            return await self._transport.handle_async_request(request)
        except httpx.HTTPError as error:
            raise to_llm_error(error, self.name) from error

    async def _read_whole(
        self, response: httpx.Response, stream: httpx.AsyncByteStream, body: bytearray, model: str
    ) -> Answer:
        """`body` holds what has been read of it already."""
        await self._exhaust(response, stream, body)
        answer = self._read(response.status_code, response.headers, body)
        if not answer.is_plain:
            answer.raw_reply = self._excerpt(body)
        answer.model = answer.model or model
        return answer

    async def _read_start(
        self, response: httpx.Response, stream: httpx.AsyncByteStream
    ) -> bytearray:
        """Returns as much of the body as shows what it is; all of it, if it is short."""
        start = bytearray()
        if not response.is_success:
            return start
        try:
            async for chunk in stream:
                start += chunk
                is_marked = start[:3] == BYTE_ORDER_MARK[: len(start)]
                if len(start) >= sse.START_BYTES or start[3 if is_marked else 0 :].strip():
                    break
        except httpx.HTTPError as error:
            raise broken_reply(error, self.name, response, self._excerpt(start)) from error
        return start

    async def _read_stream(
        self,
        response: httpx.Response,
        body: Body,
        start: bytes,
        attempt: StreamedAttempt,
    ) -> Answer:
        """Returns the answer once all of it has come."""
        decoration = Decoration(self._excerpt)
        reader = self.reader(attempt.transcript, decoration)
        reader.keeps_extras = self.speaks(attempt.prompt)
        follower = Follower(self.name, reader, attempt, self._max_reply_bytes)
        head, status = follower.head, response.status_code
        try:
            await follower.follow(start, body)
            answer = require_text(self.name, attempt.transcript.answer(decoration))
        except ErrorEvent as fault:
            raise self._failure(
                status, response.headers, head, {}, fault.error, attempt.paid_part()
            ) from None
        except UnusableReply as fault:
            if fault.finding is not Finding.BROKEN_OFF:
                raw_reply, partial = self._excerpt(head), attempt.paid_part()
                raise self._unusable(fault, status, raw_reply, partial) from None
            raise attempt.broken(str(fault), status, self._excerpt(head)) from None
        except httpx.HTTPError as error:
            detail = f"{self.name} closed the connection before its answer was complete"
            raise attempt.broken(detail, status, self._excerpt(head)) from error
        self._count_doubtful(decoration)
        if not answer.is_plain:
            answer.raw_reply = self._excerpt(head)
        answer.model = answer.model or attempt.model
        return answer

    async def _exhaust(
        self, response: httpx.Response, stream: httpx.AsyncByteStream, body: bytearray
    ) -> None:
        """Read the rest of the body. That of an error may be incomplete."""
        if not response.is_success:  # the status says enough
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(_ERROR_BODY_TIMEOUT_S):
                    await self._read_body(response, stream, body)
            return
        try:
            await self._read_body(response, stream, body)
        except httpx.HTTPError as error:
            raise broken_reply(error, self.name, response, self._excerpt(body)) from error

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
