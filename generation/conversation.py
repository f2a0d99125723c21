"""A conversation with a model: what is sent and what comes back, in no provider's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


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
