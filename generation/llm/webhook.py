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

from generation.llm.posting import Post

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
        self._secret = settings.limit_webhook_secret.get_secret_value()
        self._post = Post("the webhook", settings.limit_webhook, transport, timeout_s=TIMEOUT_S)

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
        headers = {
            "webhook-id": message_id,  # the same at each try, so that the receiver knows it again
            "webhook-timestamp": str(timestamp),
        }
        if self._secret:
            headers["webhook-signature"] = signature(self._secret, message_id, timestamp, body)
        answer = await self._post(body, headers)
        return answer is not None and httpx.codes.is_success(answer.status)
