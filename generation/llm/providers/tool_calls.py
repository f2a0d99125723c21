"""Tool calls of a stream, put one after the other, however the server numbers its pieces."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson

from generation.events import ToolArguments, ToolEnd, ToolStart
from generation.llm.providers.parsing import UnusableReply

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.events import Content

# Read again in one stream to see whether arguments are complete: 0.1 s of the process's time.
_MAX_CHECKED_CHARS = 16_000_000


def make_id() -> str:
    """For a call that the server gave none: its result has to name it."""
    return f"call_{uuid4().hex}"


@dataclass(slots=True, eq=False)
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    sent: int = 0  # of the arguments
    checked: int = 0  # of the arguments, when they were last looked at
    is_complete: bool = False  # they were a JSON object then
    is_started: bool = False
    is_ended: bool = False


class ToolCalls:
    """The calls of one answer. `emit` gets their events, one call after the other.

    The first call that has not ended is passed on as it comes. Those after it wait until its
    arguments are complete, because servers may send the pieces of several by turns.
    """

    def __init__(self, emit: Callable[[Content], None]) -> None:
        self._emit = emit
        self._waiting: deque[_Call] = deque()  # the first of them is being passed on
        self._by_index: dict[int | None, _Call] = {}  # the latest of each; None: of all
        self._by_id: dict[str, _Call] = {}
        self._checkable = _MAX_CHECKED_CHARS

    def __bool__(self) -> bool:
        """Whether there was any."""
        return bool(self._by_index)

    @property
    def are_open(self) -> bool:
        return bool(self._waiting)

    def add(self, index: int | None, call_id: str, name: str, arguments: str) -> None:
        """A piece of a call; what the server left out is None or ''. Raises `UnusableReply`."""
        call = self._find(index, call_id, name, arguments)
        if arguments and call.is_ended:
            raise UnusableReply("the stream goes on with a tool call that had ended")
        call.name = call.name or name
        if call_id and not call.is_started:
            call.id = call.id or call_id
        if arguments:
            call.arguments.append(arguments)
        self._pass_on()

    def end(self) -> None:
        """Nothing more comes of them."""
        while self._waiting:
            self._end_first()

    def _find(self, index: int | None, call_id: str, name: str, arguments: str) -> _Call:
        """The call that a piece belongs to: the index may be missing or repeated, and so may
        be the id, and either may be wrong."""
        call = self._by_id.get(call_id) if call_id else None
        if call is None:
            call = self._by_index.get(index)
            if call is None or (name and self._begins_another(call, call_id, name, arguments)):
                call = _Call(call_id, name)
                self._waiting.append(call)
        self._by_index[index] = self._by_index[None] = call
        if call_id:
            self._by_id[call_id] = call
        return call

    def _begins_another(self, call: _Call, call_id: str, name: str, arguments: str) -> bool:
        """Whether a piece with a name begins a call beside the one of the same index."""
        if call_id and call.id:
            return True  # the id is a new one
        if call.name and call.name != name:
            return True
        return bool(call.name and arguments) and self._is_complete(call)

    def _pass_on(self) -> None:
        while self._waiting:
            call = self._waiting[0]
            self._pass_on_first(call)
            if len(self._waiting) == 1 or not self._is_complete(call):
                return
            self._end_first()

    def _pass_on_first(self, call: _Call) -> None:
        if not call.name:
            return
        if not call.is_started:
            call.is_started = True
            call.id = call.id or make_id()
            self._emit(ToolStart(call.id, call.name))
        while call.sent < len(call.arguments):
            self._emit(ToolArguments(call.arguments[call.sent]))
            call.sent += 1

    def _end_first(self) -> None:
        call = self._waiting.popleft()
        if not call.name:
            raise UnusableReply("the stream holds a tool call without a name")
        if not any(call.arguments):
            call.arguments.append("{}")  # of a tool without parameters
        self._pass_on_first(call)
        call.is_ended = True
        self._emit(ToolEnd())

    def _is_complete(self, call: _Call) -> bool:
        """Whether its arguments are a JSON object. Nothing is read again before more has come."""
        if call.checked < len(call.arguments):
            call.checked = len(call.arguments)
            call.is_complete = self._check(call)
        return call.is_complete

    def _check(self, call: _Call) -> bool:
        if self._checkable <= 0 or not call.arguments[-1].rstrip().endswith("}"):
            return False
        arguments = "".join(call.arguments)
        self._checkable -= len(arguments)
        try:
            orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return False
        return True
