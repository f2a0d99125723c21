"""The most that a call may use, before anyone knows what it does. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from generation.conversation import Image, Text, Thinking, ToolResult, ToolUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from generation.conversation import Part
    from generation.records import Prompt

# Real text has three to four bytes a token; rare scripts and base64 come near to two.
BYTES_PER_TOKEN = 2
MESSAGE_TOKENS = 16  # that frame a message
IMAGE_TOKENS = 6000  # more than a large one takes at any of the vendors


def input_tokens(prompt: Prompt) -> int:
    """Returns a bound that real prompts stay below."""
    verbatim = prompt.verbatim
    if verbatim is None and not prompt.messages and not prompt.tools:
        size = _bytes(prompt.text) + _bytes(prompt.system)
        return -(-size // BYTES_PER_TOKEN) + 2 * MESSAGE_TOKENS
    images = [len(image.data) for image in _images(prompt)]
    if verbatim is not None:
        size = max(verbatim.bytes - sum(images), 0)
    else:
        parts = [part for message in prompt.messages for part in message.parts]
        size = _bytes(prompt.system) + (_size_of(parts) if parts else _bytes(prompt.text))
        if prompt.tools:
            size += len(orjson.dumps(prompt.tools, default=str))
    frames = MESSAGE_TOKENS * (len(prompt.messages) + 2)
    return -(-size // BYTES_PER_TOKEN) + frames + IMAGE_TOKENS * len(images)


def output_tokens(prompt: Prompt) -> int:
    """Returns how many the answer may have; embeddings have none."""
    is_other = prompt.verbatim is not None and prompt.verbatim.path
    return 0 if is_other else prompt.max_tokens


def _images(prompt: Prompt) -> Iterator[Image]:
    for message in prompt.messages:
        for part in message.parts:
            inner = part.parts if isinstance(part, ToolResult) else (part,)
            yield from (each for each in inner if isinstance(each, Image))


def _size_of(parts: Iterable[Part]) -> int:
    size = 0
    for part in parts:
        match part:
            case Text(text) | Thinking(text):
                size += _bytes(text)
            case ToolUse():
                size += _bytes(part.name) + _bytes(part.arguments)
            case ToolResult():
                size += _size_of(part.parts)
            case Image():
                pass  # it has a number of its own
    return size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
