"""What it means that a call to a provider's server failed on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from generation.llm import policy
from generation.records import Finding

if TYPE_CHECKING:
    from generation.errors import LLMError


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
    said = str(error) or type(error).__name__
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
