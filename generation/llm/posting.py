"""Posts JSON to an address of an operator's, e.g. a webhook's or a collector's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ANSWER_BYTES = 65_536

logger = logging.getLogger(__name__)


class Posted(NamedTuple):
    """What the address has answered."""

    status: int
    retry_after: float  # seconds; 0.0 if it does not say
    content: bytes  # the first MAX_ANSWER_BYTES


class Post:
    """One address, through the transport of the LLM's calls."""

    def __init__(
        self,
        name: str,
        url: str,
        transport: httpx.AsyncBaseTransport,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`name` is for the log: an address may hold a secret."""
        self._name = name
        self._url = httpx.URL(url)
        self._transport = transport
        self._timeout_s = timeout_s
        self._headers = {
            **(headers or {}),
            "host": self._url.netloc.decode("ascii"),
            "content-type": "application/json",
        }

    async def __call__(
        self, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Posted | None:
        """Returns None if no answer came in time. Raises nothing."""
        sent = {**self._headers, "content-length": str(len(body)), **(headers or {})}
        request = httpx.Request("POST", self._url, headers=sent, content=body)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._transport.handle_async_request(request)
                async with contextlib.aclosing(response):
                    content = await _beginning(response)
        except (httpx.HTTPError, TimeoutError) as error:
            logger.info("%s can't be reached: %s", self._name, type(error).__name__)
            return None
        asked_s = _seconds(response.headers.get("retry-after", ""))
        return Posted(response.status_code, asked_s, content)


async def _beginning(response: httpx.Response) -> bytes:
    """Returns a short answer whole: only then is its connection used again."""
    content = b""
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            break
    return content[:MAX_ANSWER_BYTES]


def _seconds(retry_after: str) -> float:
    """A date does not count, since its sender's clock may be wrong."""
    return float(retry_after) if retry_after.isdecimal() else 0.0
