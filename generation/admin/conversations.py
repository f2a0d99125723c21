"""A conversation, and an answer's blocks, as people read them: who says what, in order."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from generation.conversation import parse


class Turn(NamedTuple):
    speaker: str  # e.g. user, assistant, tool call
    text: str
    call_id: str = ""  # which a tool's call and its result share
    is_code: bool = False


def turns_of(document: str) -> list[Turn]:
    """Returns the turns of `GenerationBody.conversation` or `.blocks`.

    What is kept only as a hash, or can't be read, is one turn without a speaker.
    """
    found = parse(document)
    if found is None:
        return [Turn("", document)] if document else []
    if isinstance(found, list):
        return [_turn("", part) for part in found]
    turns = [
        _turn(message["role"], part)
        for message in found.get("messages", ())
        for part in message["content"]
    ]
    turns += [
        Turn(
            f"available tool: {tool['name']}",
            f"{tool['description']}\n{_pretty(tool['parameters'])}".strip(),
            is_code=True,
        )
        for tool in found.get("tools", ())
    ]
    if options := found.get("options"):
        turns.append(Turn("options", _pretty(options), is_code=True))
    return turns


def _turn(role: str, part: dict[str, Any]) -> Turn:
    match part["type"]:
        case "thinking":
            return Turn("thinking", part["text"])
        case "tool_use":
            call = f"{part['name']}({part['arguments']})"
            return Turn("tool call", call, part["id"], is_code=True)
        case "tool_result":
            text = "\n".join(_turn("", each).text for each in part["content"])
            speaker = "tool failed" if part["is_error"] else "tool result"
            return Turn(speaker, text, part["tool_use_id"])
        case "image":
            return Turn(f"{role} image", part.get("url") or _describe_image(part))
    return Turn(role or "text", part.get("text", ""))


def _describe_image(part: dict[str, Any]) -> str:
    return f"{part['bytes']:,} bytes of {part['media_type']}, SHA-256 {part['sha256']}"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
