"""What an answer is made of while it arrives: the events that every provider's stream is read into.

In order: `Start`, then blocks one after the other (text and thinking in deltas; a tool call as
`ToolStart`, its arguments, `ToolEnd`). Usage and the stop reason are in the answer's transcript. An
error is raised. What only a client of the provider's own dialect understands comes between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from generation.conversation import Text, Thinking
from generation.records import record

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


@record
class TextDelta:
    text: str


@record
class ThinkingDelta:
    text: str
    signature: str = ""
    is_redacted: bool = False


@dataclass(frozen=True, slots=True)
class ToolStart:
    id: str
    name: str


@record
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
    """Returns the same answer in fewer events: pieces that follow each other are one."""
    found: list[Event] = []
    for kind, group in groupby(events, type):
        run = list(group)
        if kind in PIECES and not (kind is ThinkingDelta and any(map(_is_marked, run))):
            run = _one_of(kind, run)
        found += run  # a project's own kind may have more than a text
    return found


def _one_of(kind: type[Piece], pieces: list[Any]) -> list[Event]:
    done = 1 if len(pieces[0].text) >= PIECE_CHARS else 0
    rest = "".join([piece.text for piece in pieces[done:]])
    return [*pieces[:done], kind(rest)] if rest else pieces


def _is_marked(thought: Any) -> bool:
    return bool(thought.signature or thought.is_redacted)


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
