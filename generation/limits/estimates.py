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


def tokens(prompt: Prompt) -> tuple[int, int]:
    """Returns a bound of a prompt's tokens, which real ones stay below, and how many its answer
    may have; embeddings have none."""
    verbatim = prompt.verbatim
    if verbatim is not None:
        images = [len(image.data) for image in _images(prompt)]
        size = max(verbatim.bytes - sum(images), 0)
        return _with_frames(prompt, size, len(images)), 0 if verbatim.path else prompt.max_tokens
    if not prompt.messages and not prompt.tools:
        size = _bytes(prompt.text) + (_bytes(prompt.system) if prompt.system else 0)
        return -(-size // BYTES_PER_TOKEN) + 2 * MESSAGE_TOKENS, prompt.max_tokens
    parts = [part for message in prompt.messages for part in message.parts]
    size = _bytes(prompt.system) + (_size_of(parts) if parts else _bytes(prompt.text))
    if prompt.tools:
        size += len(orjson.dumps(prompt.tools, default=str))
    return _with_frames(prompt, size, sum(1 for _image in _images(prompt))), prompt.max_tokens


def _with_frames(prompt: Prompt, size: int, images: int) -> int:
    frames = MESSAGE_TOKENS * (len(prompt.messages) + 2)
    return -(-size // BYTES_PER_TOKEN) + frames + IMAGE_TOKENS * images


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
