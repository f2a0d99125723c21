"""Server-sent events, decoded from bytes that arrive in pieces cut anywhere.

As https://html.spec.whatwg.org/multipage/server-sent-events.html has it, but what is pending at the
end of the body is an event, too, because some servers leave out the last blank line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from generation.llm.providers.parsing import BYTE_ORDER_MARK, GZIP, UnusableReply

if TYPE_CHECKING:
    from collections.abc import Iterable


START_BYTES = 100  # of a body, which show what it is
_STARTS = (b"data:", b"event:", b":", b"id:", b"retry:")
# Nearly all bytes: an event of one line of data, perhaps with a name; or blank lines and comments,
# of which a server may send a great many.
_USUAL = re.compile(rb"(?:event: ([^\n]*+)\n)?data: ([^\n]++)\n\n|(?:(?::[^\n]*+)?\n)++")


def is_stream(content_type: str, body: bytes | bytearray) -> bool:
    """Whether the body, or its beginning, is a stream of events; some servers label it as JSON."""
    if body.startswith((b"{", b"[")):  # nearly every whole reply
        return False
    start = body[:START_BYTES].removeprefix(BYTE_ORDER_MARK).lstrip()
    return start.startswith(_STARTS) or (
        content_type.startswith("text/event-stream")
        and not start.startswith((b"{", b"[", b"<", GZIP))
    )


class Decoder:
    """Feed it the bytes as they come. An event is its name ('' if it has none) and its data."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # without its end so far
        self._data: list[bytes] = []  # the lines of the event so far
        self._data_bytes = 0
        self._name = ""
        self._is_first_line = True
        self._is_after_cr = False  # which ends a line, together with an LF if one follows

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """Returns the events that are complete now. Raises `UnusableReply` for one too large."""
        events: list[tuple[str, bytes]] = []
        if self._is_after_cr or b"\r" in chunk:
            self._read_lines(chunk, events)
            return events
        at, end = 0, len(chunk)
        is_pending = bool(self._line or self._data or self._name)
        while at < end:
            usual = None if is_pending else _USUAL.match(chunk, at)
            if usual is not None:
                self._is_first_line = False
                at = usual.end()
                name, data = usual.groups(b"")
                if data:
                    events.append((name.decode("utf-8", "replace"), data))
            else:  # up to the next blank line, after which nothing is pending
                cut = chunk.find(b"\n\n", at) + 2
                begin, at = at, cut if cut > 1 else end
                self._read_lines(chunk[begin:at], events)
                is_pending = False
        return events

    def end(self) -> list[tuple[str, bytes]]:
        """Returns the last event, if it is not followed by a blank line."""
        events: list[tuple[str, bytes]] = []
        self._read_lines(b"\n\n", events)
        return events

    def _read_lines(self, chunk: bytes, events: list[tuple[str, bytes]]) -> None:
        if self._is_after_cr and chunk:
            self._is_after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._is_after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if self._line:
                line = bytes(self._line) + line  # noqa: PLW2901  # its beginning came earlier
                self._line.clear()
            self._read_line(line, events)
        self._line += rest
        if len(self._line) + self._data_bytes > self._max_event_bytes:
            raise UnusableReply(f"an event of the stream exceeds {self._max_event_bytes} bytes")

    def _read_line(self, line: bytes, events: list[tuple[str, bytes]]) -> None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            data = b"\n".join(self._data)
            if data:
                events.append((self._name, data))
            self._data.clear()
            self._data_bytes = 0
            self._name = ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")


def decode(body: bytes | bytearray) -> Iterable[tuple[str, bytes]]:
    """Returns the events of a whole body."""
    decoder = Decoder(len(body))
    return [*decoder.feed(bytes(body)), *decoder.end()]
