"""The native API's stream of events: `start`, `delta`, then `usage` and `done`, or `error`.

The `id:` of an event is the position in the answer up to which a client has it: characters of text,
of thinking and of arguments, and one for the start of each tool call and each signature. The
answer's row says what follows a position as well as the running stream does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from generation.api.native.answers import answer, usage_of
from generation.asgi.event_stream import EventSource
from generation.asgi.problems import problem_document, stored_problem
from generation.events import (
    Start,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolStart,
    of_generation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from generation.errors import StaccatoError
    from generation.events import Event
    from generation.records import Generation, StoredGeneration


_TEXT = b'id: %d\nevent: delta\ndata: {"text":%b}\n\n'


class NativeEvents:
    """Writes the events of one answer for one client."""

    def __init__(self, generation_id: UUID, after: int | None = None) -> None:
        """`after`: the position that the client has; None: it has not even the start."""
        self._id = generation_id
        self._after = after
        self._position = 0
        self._tool = ""  # the id of the call whose arguments come
        self._has_begun = False

    def skip(self) -> None:
        """Leave out the answer: the client's position in it is none in what is kept of it."""
        self._has_begun = True
        self._position = self._after or 0

    def encode(self, events: Sequence[Event]) -> bytes:
        self._has_begun = True
        return b"".join(map(self._encode, events))

    def finish(self, generation: Generation) -> bytes:
        """The events of the whole answer, if it was made earlier."""
        answered = b""
        if not self._has_begun:
            self._id = generation.id
            answered = self.encode(of_generation(generation))
        return (
            answered
            + self._write(b"usage", usage_of(generation.usage))
            + self._write(b"done", answer(generation))
        )

    def fail(self, error: StaccatoError) -> bytes:
        return self._write(b"error", problem_document(error))

    def fail_stored(self, slug: str, detail: str) -> bytes:
        return self._write(b"error", stored_problem(slug, detail))

    def _encode(self, event: Event) -> bytes:
        if type(event) is TextDelta and self._after is None and event.text:  # nearly all are
            self._position += len(event.text)
            return _TEXT % (self._position, _dump(event.text))
        if isinstance(event, Start):
            start = {"id": self._id, "model": event.model, "provider": event.provider}
            return self._write(b"start", start) if self._after is None else b""
        delta = self._delta(event)
        return self._write(b"delta", delta) if delta else b""

    def _delta(self, event: Event) -> dict[str, Any]:
        """Returns nothing for an event that the client has, or that no delta stands for."""
        delta: dict[str, Any] = {}
        match event:
            case TextDelta(text):
                if rest := self._advance(text):
                    delta["text"] = rest
            case ThinkingDelta(text, signature):
                if rest := self._advance(text):
                    delta["thinking"] = rest
                if signature and self._advance("^"):
                    delta["signature"] = signature
            case ToolStart(tool_id, name):
                self._tool = tool_id
                if self._advance("^"):
                    delta["tool"] = {"id": tool_id, "name": name}
            case ToolArguments(text):
                if rest := self._advance(text):
                    delta["tool"] = {"id": self._tool, "arguments": rest}
        return delta

    def _advance(self, text: str) -> str:
        """Returns what of the text the client does not have."""
        begin = self._position
        self._position += len(text)
        if self._after is None or self._after <= begin:
            return text
        return text[self._after - begin :]

    def _write(self, kind: bytes, document: dict[str, Any]) -> bytes:
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (self._position, kind, _dump(document))


class StoredEvents(EventSource):
    """The events of a generation that is in the log."""

    def __init__(self, stored: StoredGeneration, after: int | None) -> None:
        events = NativeEvents(stored.generation.id, after)
        self._rest = b""
        if after is None or stored.is_verbatim:
            self._rest = events.encode(of_generation(stored.generation))
        else:
            events.skip()
        if stored.status == "succeeded":
            self._rest += events.finish(stored.generation)
        else:
            self._rest += events.fail_stored(stored.error_type, stored.error)

    async def read(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    def close(self) -> None:
        pass


def _dump(document: dict[str, Any] | str) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate, which the model may write
        return json.dumps(document, default=str).encode()
