"""Answers that a server streams although we ask for a whole one: server-sent events, joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN_OFF = "error"  # the stop reason of an answer without an end
_STARTS = (b"data:", b"event:", b": ", b":\n", b"id:")


def is_stream(content_type: str, body: bytearray) -> bool:
    """Whether the body is a stream of events; some servers label it as JSON."""
    if body.startswith((b"{", b"[")):  # nearly every reply
        return False
    start = body[:100].lstrip()
    return start.startswith(_STARTS) or (
        content_type.startswith("text/event-stream") and not start.startswith((b"{", b"["))
    )


def read(body: bytearray) -> Iterator[Any]:
    """Yields the events' JSON, up to the first that is none: the stream broke off there."""
    text = body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    for block in text.split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"]
        data = "\n".join(lines).strip()
        if not data or data == "[DONE]":
            continue
        try:
            yield orjson.loads(data)
        except orjson.JSONDecodeError:
            return
