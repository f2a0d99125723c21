"""How calls to providers are sent: HTTP/1.1 in the loop's own thread, under httpx's types."""

from generation.llm.transport.pooling import Transport

__all__ = ["Transport"]
