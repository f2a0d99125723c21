"""What has come so far of an answer that arrives in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from generation.conversation import Image, Text, Thinking, ToolResult, ToolUse
from generation.events import Extra, TextDelta, ThinkingDelta, ToolArguments, ToolStart
from generation.llm.providers.base import Answer
from generation.records import Usage

if TYPE_CHECKING:
    from generation.conversation import Block, Part
    from generation.events import Event
    from generation.llm.providers.parsing import Decoration
    from generation.records import Prompt

CHARS_PER_TOKEN = 4  # the usual rule of thumb for English
_TOKENS_PER_IMAGE = 1000  # between what providers count for a small one and for a large one


@dataclass(slots=True)
class Transcript:
    """One streamed attempt's. Its reader writes it, and it outlives a cancelled attempt."""

    # With a start once they are handed on; the relay joins them then.
    events: list[Event] = field(default_factory=list)
    opening: list[Extra] = field(default_factory=list)  # before the first content
    has_extras: bool = False  # among the events
    model: str = ""  # as the provider names it
    usage: Usage = field(default_factory=lambda: Usage(None, None))
    stop_reason: str | None = None  # None: the answer is not whole

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    def blocks(self) -> tuple[Block, ...]:
        """The events joined. A tool call or thinking that was cut off is among them."""
        events = self.events
        if self.has_extras:
            events = [event for event in events if not isinstance(event, Extra)]
        return tuple(_join(events))

    def answer(self, decoration: Decoration) -> Answer:
        """Returns what has come; of an answer that is not whole, the stop reason is ''."""
        blocks = self.blocks()
        is_plain = self.stop_reason in {"end_turn", "stop_sequence"} and not decoration.doubtful
        return Answer(
            text=self.text,
            usage=self.usage,
            model=self.model,
            stop_reason=self.stop_reason or "",
            blocks=kept_blocks(blocks),
            is_plain=is_plain and sum(isinstance(block, Text) for block in blocks) == 1,
        )

    def estimated_usage(self, prompt: Prompt) -> Usage:
        """What an unfinished answer used: what the provider said of it, or more by its length."""
        made = estimate_tokens("".join(map(_written, self.events)))
        usage = self.usage
        return Usage(
            estimate_input(prompt) if usage.input_tokens is None else usage.input_tokens,
            max(made, usage.output_tokens or 0),
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            is_estimated=True,
        )


def kept_blocks(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Returns the blocks; none if they say no more than the answer's text does."""
    is_plain = len(blocks) <= 1 and all(isinstance(block, Text) for block in blocks)
    return () if is_plain else blocks


def estimate_tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


def estimate_input(prompt: Prompt) -> int:
    """Tokens of all that is sent."""
    said = [part for message in prompt.messages for part in message.parts] or [Text(prompt.text)]
    tools = (f"{tool.name}{tool.description}{tool.parameters}" for tool in prompt.tools)
    return (
        estimate_tokens(prompt.system)
        + sum(map(_estimate_part, said))
        + sum(map(estimate_tokens, tools))
    )


def _estimate_part(part: Part) -> int:
    match part:
        case Text(text) | Thinking(text):
            return estimate_tokens(text)
        case ToolUse():
            return estimate_tokens(part.name + part.arguments)
        case ToolResult(parts=parts):
            return sum(map(_estimate_part, parts))
        case Image():
            return _TOKENS_PER_IMAGE


def _written(event: Event) -> str:
    if isinstance(event, TextDelta | ThinkingDelta | ToolArguments):
        return event.text
    return event.name if isinstance(event, ToolStart) else ""


def _join(events: list[Event]) -> list[Block]:
    blocks: list[Block] = []
    at, end = 0, len(events)
    while at < end:
        first, start = events[at], at
        if isinstance(first, TextDelta):
            while at < end and isinstance(events[at], TextDelta):
                at += 1
            blocks.append(Text("".join(map(_written, events[start:at]))))
        elif isinstance(first, ThinkingDelta):
            signature = first.signature
            at += 1
            while at < end and not signature and isinstance(event := events[at], ThinkingDelta):
                if event.is_redacted:
                    break
                signature = event.signature  # it ends the block
                at += 1
            text = "".join(map(_written, events[start:at]))
            blocks.append(Thinking(text, signature, first.is_redacted))
        elif isinstance(first, ToolStart):
            at += 1
            while at < end and isinstance(events[at], ToolArguments):
                at += 1
            arguments = "".join(map(_written, events[start + 1 : at]))
            blocks.append(ToolUse(first.id, first.name, arguments))
        else:  # the start, or the end of a tool call
            at += 1
    return blocks
