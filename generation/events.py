"""What an answer is made of while it arrives: the events that every provider's stream is read into.

In order: `Start`, then blocks one after the other (text and thinking in deltas; a tool call as
`ToolStart`, its arguments, `ToolEnd`). Usage and the stop reason are in the answer's transcript. An
error is raised. What only a client of the provider's own dialect understands comes between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from generation.conversation import Text, Thinking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from generation.records import Generation, Usage


@dataclass(frozen=True, slots=True)
class Start:
    model: str  # as the provider names it; '' if it does not
    provider: str = ""  # the one that answers, which may be a fallback
    # As far as it is known before the answer: Anthropic counts the input first.
    usage: Usage | None = field(default=None, compare=False)
    extras: tuple[Extra, ...] = ()  # that came before the first content


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str
    signature: str = ""
    is_redacted: bool = False


@dataclass(frozen=True, slots=True)
class ToolStart:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """More of the arguments of the tool call that began last."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolEnd:
    pass


@dataclass(frozen=True, slots=True)
class Extra:
    """Members of the provider's that no other event stands for, in the shape of its dialect.

    Only a client of the same dialect is sent them. The log has none.
    """

    members: Mapping[str, Any]


Content: TypeAlias = TextDelta | ThinkingDelta | ToolStart | ToolArguments | ToolEnd | Extra
Event: TypeAlias = Start | Content
Piece: TypeAlias = TextDelta | ThinkingDelta | ToolArguments

PIECES = (TextDelta, ThinkingDelta, ToolArguments)
PIECE_CHARS = 1000  # a piece of so many is joined no more, so that no text is copied many times


def joined(events: Iterable[Event]) -> list[Event]:
    """Returns the same answer in fewer events: short pieces that follow each other are one."""
    found: list[Event] = []
    for kind, group in groupby(events, _joinable):
        if kind is None:
            found += group
        else:
            pieces = cast("Iterable[Piece]", group)
            found.append(kind("".join([piece.text for piece in pieces])))
    return found


def _joinable(event: Event) -> type[Piece] | None:
    """Returns the kind of a short piece; None for what has to stay an event of its own."""
    if not isinstance(event, PIECES) or len(event.text) >= PIECE_CHARS:
        return None
    if isinstance(event, ThinkingDelta) and (event.signature or event.is_redacted):
        return None
    return type(event) if type(event) in PIECES else None  # a project's own may need more


def of_generation(generation: Generation) -> list[Event]:
    """Returns the events of a whole answer, as a stream of it would have brought them."""
    events: list[Event] = [Start(generation.model, generation.provider)]
    for block in generation.blocks or (Text(generation.result),):
        match block:
            case Text(text):
                events.append(TextDelta(text))
            case Thinking(text, signature, is_redacted):
                events.append(ThinkingDelta(text, signature, is_redacted))
            case _:
                events += [
                    ToolStart(block.id, block.name),
                    ToolArguments(block.arguments),
                    ToolEnd(),
                ]
    return events
