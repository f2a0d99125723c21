"""Reads a whole message of Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from generation.conversation import Text, Thinking, ToolUse
from generation.llm.providers.anthropic.stream import STOP_REASON, count
from generation.llm.providers.base import Answer
from generation.llm.providers.parsing import UnusableReply, optional
from generation.llm.providers.tool_calls import make_id
from generation.llm.transcript import kept_blocks

if TYPE_CHECKING:
    from generation.conversation import Block
    from generation.llm.providers.parsing import Decoration

_TEXT_OR_THINKING = frozenset({"text", "thinking", "redacted_thinking"})
_COMPLETE = frozenset({"end_turn", "stop_sequence"})


def decode(name: str, payload: Any, decoration: Decoration) -> Answer:
    """Returns the answer, which need not be usable. Raises `UnusableReply` if there is none."""
    content = payload.get("content") if isinstance(payload, dict) else None
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise UnusableReply(f"{name} sent something else than a message")
    texts, kinds = [], set()
    blocks: list[Block] = []
    for block in content:
        kind = optional(str, block, "type") or "text"
        text = optional(str, block, "text")
        kinds.add(kind)
        if kind == "text" and text is not None:
            texts.append(text)
            blocks.append(Text(text))
        elif kind == "text":
            decoration.doubt("content")
        else:
            blocks += _read_block(kind, block)
    stop_reason = decoration.name(payload, "stop_reason")
    answer = Answer(
        text="".join(texts),
        usage=count(optional(dict, payload, "usage"), decoration),
        model=decoration.name(payload, "model"),
        stop_reason=STOP_REASON.get(stop_reason, stop_reason),
        blocks=kept_blocks(tuple(blocks)),
    )
    answer.is_plain = (
        len(texts) == 1
        and stop_reason in _COMPLETE
        and kinds <= _TEXT_OR_THINKING
        and not decoration.doubtful
    )
    return answer


def _read_block(kind: str, block: dict[str, Any]) -> list[Block]:
    """Returns the block; nothing for a kind that is not the caller's, e.g. a server's own tool."""
    if kind == "thinking":
        thought = optional(str, block, "thinking") or ""
        return [Thinking(thought, optional(str, block, "signature") or "")]
    if kind == "redacted_thinking":
        return [Thinking("", optional(str, block, "data") or "", is_redacted=True)]
    if kind != "tool_use":
        return []
    arguments = orjson.dumps(block.get("input") or {}).decode()
    call_id = optional(str, block, "id") or make_id()
    return [ToolUse(call_id, optional(str, block, "name") or "", arguments)]
