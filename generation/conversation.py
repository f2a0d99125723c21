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
    is_redacted: bool = False  # the signature is the thought itself, encrypted


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
    is_strict: bool = False  # whether the arguments have to follow the schema in every case


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
MAX_BYTES = 262_144  # of a conversation in the log
# What of a conversation that is too large is kept.
_MANY_PARTS = 20
_MANY_TOOLS = 500
_NAME_CHARS = 64
_SHORTEST_CHARS = 20
_BYTES_PER_CHAR = 6  # at most: a control character, escaped
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
                blocks.append(
                    Thinking(each["text"], each["signature"], each.get("is_redacted", False))
                )
            case "tool_use":
                blocks.append(ToolUse(each["id"], each["name"], each["arguments"]))
    return tuple(blocks)


def parse(document: str) -> Any:
    """Returns the JSON of a row; None where the row keeps nothing, or a hash of it."""
    return orjson.loads(document) if document.startswith(("[", "{")) else None


def dump_conversation(messages: Sequence[Message], tools: Sequence[Tool], options: Options) -> str:
    """Returns what was sent as JSON for the log; '' if it was no more than a prompt.

    It has about MAX_BYTES at most: first the tools lose their descriptions, then the oldest
    messages are left out.
    """
    if not (messages or tools) and options is NO_OPTIONS:  # most requests
        return ""
    sent: dict[str, Any] = {
        "messages": list(map(_message, messages)),
        "tools": list(map(_tool, tools)),
        "options": {name: value for name, value in asdict(options).items() if value not in _UNSET},
    }
    given = {name: value for name, value in sent.items() if value}
    dumped = orjson.dumps(given)
    return (dumped if len(dumped) <= MAX_BYTES else orjson.dumps(_bounded(given))).decode()


def _bounded(sent: dict[str, Any]) -> dict[str, Any]:
    kept = dict(sent)
    if _size(kept.get("tools", ())) > MAX_BYTES // 2:
        few = kept["tools"][:_MANY_TOOLS]
        kept["tools"] = [
            {"name": tool["name"][:_NAME_CHARS], "description": "", "parameters": {}}
            for tool in few
        ]
    if _size(kept.get("options", {})) > MAX_BYTES // 4:
        kept["options"] = {"left out": "they are too large"}
    left = MAX_BYTES - sum(_size(value) for name, value in kept.items() if name != "messages")
    newest: list[dict[str, Any]] = []
    for message in reversed(kept.get("messages", ())):
        size = _size(message)
        if size > left:
            break
        left -= size
        newest.insert(0, message)
    messages = sent.get("messages", [])
    if messages and not newest:
        newest = [_shortened(messages[-1])]
    if count := len(messages) - len(newest):
        note = {"type": "text", "text": f"[{count} earlier messages are not kept]"}
        newest.insert(0, {"role": "system", "content": [note]})
    kept["messages"] = newest
    return kept


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


def _shortened(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a message whose texts are cut: it has half of MAX_BYTES at most."""
    room = MAX_BYTES // 2 // _BYTES_PER_CHAR // max(1, _count_texts(message["content"]))
    content = _cut(message["content"], max(_SHORTEST_CHARS, room))
    note = {"type": "text", "text": "[this message is not kept whole]"}
    return {**message, "content": [*content, note]}


def _count_texts(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count_texts, value.values()))
    if isinstance(value, list):
        return sum(map(_count_texts, value[:_MANY_PARTS]))
    return isinstance(value, str)


def _cut(value: Any, room: int) -> Any:
    if isinstance(value, dict):
        return {name: _cut(each, room) for name, each in value.items()}
    if isinstance(value, list):
        return [_cut(each, room) for each in value[:_MANY_PARTS]]
    return value[:room] if isinstance(value, str) else value


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": [as_json(part) for part in message.parts]}


def _tool(tool: Tool) -> dict[str, Any]:
    described = {
        "name": clean(tool.name),
        "description": clean(tool.description),
        "parameters": tool.parameters,
    }
    return {**described, "strict": True} if tool.is_strict else described


def as_json(part: Part) -> dict[str, Any]:
    """Returns a part in the form of the log and of the native API; of an image its hash and size,
    since its bytes are large."""
    match part:
        case Text(text):
            return {"type": "text", "text": clean(text)}
        case Thinking(text, signature, is_redacted):
            thought = {"type": "thinking", "text": clean(text), "signature": clean(signature)}
            return {**thought, "is_redacted": True} if is_redacted else thought
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
