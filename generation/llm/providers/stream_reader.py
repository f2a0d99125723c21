"""What the readers of all dialects' streams share: from a stream's JSON to our events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import orjson

from generation.events import Extra, TextDelta, ThinkingDelta
from generation.llm.providers.error_bodies import ErrorObject, read_error
from generation.llm.providers.parsing import BROKEN_OFF, UnusableReply, parse_json
from generation.llm.providers.tool_calls import ToolCalls
from generation.records import Finding

if TYPE_CHECKING:
    from generation.llm.providers.parsing import Decoration
    from generation.llm.transcript import Transcript

_SUCCESS = 200
_EVENT_SIZE = 24  # so that a great many small pieces take no more memory than few large ones


class ErrorEvent(UnusableReply):
    """The stream says that something went wrong."""

    def __init__(self, error: ErrorObject) -> None:
        super().__init__("the stream ends with an error")
        self.error = error


class StreamReader(ABC):
    """Belongs to one stream. What it reads goes into the transcript.

    After the stop reason, only usage is still read.
    """

    def __init__(self, name: str, transcript: Transcript, decoration: Decoration) -> None:
        self._name = name  # of the provider
        self.transcript = transcript
        self._decoration = decoration
        self._tools = ToolCalls(transcript.events.append)
        self.has_begun = False  # an event has come, perhaps without any of the answer
        self.is_stopped = False  # the answer is whole
        self.is_over = False  # the stream says that nothing follows
        self.size = 0  # of the answer so far: its characters, and something for each piece
        self.keeps_extras = False  # the client speaks the stream's dialect
        self._half = ""  # of a surrogate pair

    @abstractmethod
    def _read(self, payload: dict[str, Any]) -> None:
        """One event. Raises `UnusableReply`."""

    def take(self, name: str, data: bytes) -> None:
        """One event. Raises `UnusableReply`; of an error that the stream reports, `ErrorEvent`."""
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            payload = self._parse_odd(data)
        if not isinstance(payload, dict):
            return
        self.has_begun = True
        if payload.get("error") or name == "error" or "base_resp" in payload:
            self._look_for_error(name, payload)
        self._read(payload)

    def end(self) -> None:
        """The body has ended. Raises `UnusableReply` if the answer had not."""
        if not self.is_stopped:
            raise self._broken_off()

    def _parse_odd(self, data: bytes) -> Any:
        """What orjson can't read: the end, lone surrogates, or something that is no JSON."""
        text = data.strip()
        if text == b"[DONE]":
            self.is_over = True
            self._close()
            return None
        if not text.startswith((b"{", b"[")):  # e.g. a server's own keep-alive
            self._decoration.doubt("event")
            return None
        try:
            return parse_json(text)
        except UnusableReply:
            # A part of the answer is lost.
            detail = f"{self._name} broke off within an event, or sent one that is no JSON"
            raise UnusableReply(detail, Finding.BROKEN_OFF) from None

    def _close(self) -> None:  # noqa: B027  # most dialects have nothing to do
        """The stream says that it is over."""

    def _look_for_error(self, name: str, payload: dict[str, Any]) -> None:
        error = read_error(payload, _SUCCESS)
        if error is None and name == "error":
            error = ErrorObject("", None)
        if error is None:
            return
        if self.is_stopped:
            self._decoration.doubt("error")  # the answer was whole all the same
            return
        raise ErrorEvent(error)

    def _broken_off(self, finding: Finding = Finding.BROKEN_OFF) -> UnusableReply:
        return UnusableReply(f"{self._name} broke off before its answer was complete", finding)

    def _stop(self, reason: str) -> None:
        self._tools.end()
        if reason == BROKEN_OFF:
            raise self._broken_off()
        if self._tools and reason in {"", "end_turn"}:
            reason = "tool_use"
        self.transcript.stop_reason = reason
        self.is_stopped = True

    def _add_extra(self, members: dict[str, Any], *, is_content: bool = True) -> None:
        """Keep what no other event stands for. Before the first content it commits the answer only
        if it is content itself."""
        self.size += len(repr(members)) + _EVENT_SIZE
        if is_content or self.transcript.events:
            self.transcript.has_extras = True
            self.transcript.events.append(Extra(members))
        else:
            self.transcript.opening.append(Extra(members))

    def _add_to_call(self, index: int | None, call_id: str, name: str, arguments: str) -> None:
        self.size += len(call_id) + len(name) + len(arguments) + _EVENT_SIZE
        self._tools.add(index, call_id, name, arguments)

    def _add_text(self, text: str) -> None:
        if self._tools.are_open:
            self._tools.end()
        if self._half or not text.isascii():
            text = self._mend(text)
        if text:
            self.size += len(text) + _EVENT_SIZE
            self.transcript.events.append(TextDelta(text))

    def _add_thinking(self, text: str, signature: str = "", *, is_redacted: bool = False) -> None:
        if self._tools.are_open:
            self._tools.end()
        if self._half or not text.isascii():
            text = self._mend(text)
        if text or signature:
            self.size += len(text) + len(signature) + _EVENT_SIZE
            self.transcript.events.append(ThinkingDelta(text, signature, is_redacted))

    def _mend(self, text: str) -> str:
        """Join a character that the server sent in two halves; half of one becomes U+FFFD."""
        if not self._half and text.isprintable():
            return text
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text[: len(text) - len(self._half)]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without(known: frozenset[str], holder: object) -> dict[str, Any]:
    """Returns the members that are not known and say something."""
    if not isinstance(holder, dict) or holder.keys() <= known:
        return {}
    return {
        name: value for name, value in holder.items() if name not in known and value is not None
    }
