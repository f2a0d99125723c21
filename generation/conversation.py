"""A conversation with a model: what is sent and what comes back, in no provider's dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias

import orjson

from generation.storable import clean


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the model thought before it answered."""

    text: str
    signature: str = ""  # Anthropic's proof that the text is its own; '' elsewhere


@dataclass(frozen=True, slots=True)
class Image:
    """By its URL, or its bytes in base64 with their media type."""

    url: str = ""
    data: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model asks for a call of one of the caller's tools."""

    id: str
    name: str
    arguments: str  # JSON as the model wrote it, which need not be valid


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the caller's tool returned."""

    tool_use_id: str
    parts: tuple[Text | Image, ...]
    is_error: bool = False


Part: TypeAlias = Text | Thinking | Image | ToolUse | ToolResult
Block: TypeAlias = Text | Thinking | ToolUse  # of an answer


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says. Results of tools are the user's, whichever role a dialect gives them."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON Schema


@dataclass(frozen=True, slots=True)
class Options:
    """How the model shall answer. None or empty: as the provider does by default."""

    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: str = ""  # low, medium or high
    tool_choice: str = ""  # auto, none, required, or a tool's name
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None  # OpenAI's: {"type": "json_schema", …}


NO_OPTIONS = Options()
_UNSET = (None, "", ())


def dump_blocks(blocks: Iterable[Part]) -> str:
    """Returns the blocks as JSON for the log; '' if there are none."""
    listed = [as_json(block) for block in blocks]
    return orjson.dumps(listed).decode() if listed else ""


def load_blocks(document: str) -> tuple[Block, ...]:
    """Returns the blocks of an answer's row; none where the row keeps none that can be read."""
    blocks: list[Block] = []
    for each in parse(document) or ():
        match each.get("type"):
            case "text":
                blocks.append(Text(each["text"]))
            case "thinking":
                blocks.append(Thinking(each["text"], each["signature"]))
            case "tool_use":
                blocks.append(ToolUse(each["id"], each["name"], each["arguments"]))
    return tuple(blocks)


def parse(document: str) -> Any:
    """Returns the JSON of a row; None where the row keeps nothing, or a hash of it."""
    return orjson.loads(document) if document.startswith(("[", "{")) else None


def dump_conversation(messages: Sequence[Message], tools: Sequence[Tool], options: Options) -> str:
    """Returns what was sent as JSON for the log; '' if it was no more than a prompt."""
    if not (messages or tools) and options is NO_OPTIONS:  # most requests
        return ""
    sent: dict[str, Any] = {
        "messages": [
            {"role": message.role, "content": [as_json(part) for part in message.parts]}
            for message in messages
        ],
        "tools": [
            {
                "name": clean(tool.name),
                "description": clean(tool.description),
                "parameters": tool.parameters,
            }
            for tool in tools
        ],
        "options": {name: value for name, value in asdict(options).items() if value not in _UNSET},
    }
    return orjson.dumps({name: value for name, value in sent.items() if value}).decode()


def as_json(part: Part) -> dict[str, Any]:
    """Returns a part in the form of the log and of the native API; of an image its hash and size,
    since its bytes are large."""
    match part:
        case Text(text):
            return {"type": "text", "text": clean(text)}
        case Thinking(text, signature):
            return {"type": "thinking", "text": clean(text), "signature": clean(signature)}
        case ToolUse(key, name, arguments):
            return {
                "type": "tool_use",
                "id": clean(key),
                "name": clean(name),
                "arguments": clean(arguments),
            }
        case ToolResult(key, parts, is_error):
            return {
                "type": "tool_result",
                "tool_use_id": clean(key),
                "content": [as_json(each) for each in parts],
                "is_error": is_error,
            }
        case Image(url, data, media_type):
            if not data:
                return {"type": "image", "url": clean(url)}
            return {
                "type": "image",
                "media_type": clean(media_type),
                "sha256": sha256(data.encode()).hexdigest(),
                "bytes": len(data) * 3 // 4,
            }
