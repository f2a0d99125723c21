"""Sends signed messages to an operator's address, in the way of Standard Webhooks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import orjson

if TYPE_CHECKING:
    from generation.conf import Settings

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
PAUSES_S = (0.0, 1.0, 5.0)  # before each try


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Returns the value of `webhook-signature`."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digest = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhook:
    """One address, which may be away: a message is tried three times, and then logged as lost."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None:
        self._url = settings.limit_webhook
        self._secret = settings.limit_webhook_secret.get_secret_value()
        self._transport = transport

    async def send(self, document: dict[str, Any]) -> None:
        """Raises nothing."""
        body = orjson.dumps(document)
        message_id = f"msg_{uuid4().hex}"
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            if await self._try(message_id, body):
                return
        logger.error("the webhook did not take an alert, which is lost: %s", body.decode())

    async def _try(self, message_id: str, body: bytes) -> bool:
        timestamp = int(time.time())
        url = httpx.URL(self._url)
        headers = {
            "host": url.netloc.decode("ascii"),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "webhook-id": message_id,  # the same at each try, so that the receiver knows it again
            "webhook-timestamp": str(timestamp),
        }
        if self._secret:
            headers["webhook-signature"] = signature(self._secret, message_id, timestamp, body)
        request = httpx.Request("POST", url, headers=headers, content=body)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._transport.handle_async_request(request)
                await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            logger.info("the webhook can't be reached: %s", type(error).__name__)
            return False
        return response.is_success
