"""A conversation as the native API takes it: messages, tools and options."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from generation import conversation
from generation.api.base import Object
from generation.api.native.fields import JSONObject, Text, at_most

MAX_MESSAGES = 1000
MAX_PARTS = 100  # of one message, or of one tool's result
MAX_TOOLS = 128
_TOOL_NAME = "^[A-Za-z0-9_-]{1,64}$"
_WEB = re.compile("https?://", re.IGNORECASE)

ToolName = Annotated[Text, Field(pattern=_TOOL_NAME)]
CallId = Annotated[Text, Field(min_length=1, max_length=256)]


def _base64(data: str) -> str:
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    return data


class TextPart(Object):
    type: Literal["text"]
    text: Text

    def record(self) -> conversation.Text:
        return conversation.Text(self.text)


class ThinkingPart(Object):
    """What the model thought, as its answer had it."""

    type: Literal["thinking"]
    text: Text
    signature: Text = ""
    is_redacted: StrictBool = False

    def record(self) -> conversation.Thinking:
        return conversation.Thinking(self.text, self.signature, self.is_redacted)


class ImagePart(Object):
    """By its `url`, or by its `data` in base64 with their `media_type`."""

    type: Literal["image"]
    url: Text = Field("", max_length=2048, description="The provider fetches it.")
    data: Annotated[str, AfterValidator(_base64)] = Field("", description="Base64.")
    media_type: Literal["", "image/png", "image/jpeg", "image/gif", "image/webp"] = ""

    @model_validator(mode="after")
    def _check_source(self) -> ImagePart:
        if bool(self.url) == bool(self.data) or bool(self.data) != bool(self.media_type):
            raise PydanticCustomError(
                "image", "an image has either a `url`, or `data` and its `media_type`"
            )
        if self.url and not _WEB.match(self.url):
            raise PydanticCustomError("image", "an image's `url` begins with https:// or http://")
        return self

    def record(self) -> conversation.Image:
        return conversation.Image(self.url, self.data, self.media_type)


class ToolUsePart(Object):
    """A call that the model asked for, as its answer had it."""

    type: Literal["tool_use"]
    id: CallId
    name: ToolName
    arguments: Text = Field(description="JSON, as the model wrote it.")

    def record(self) -> conversation.ToolUse:
        return conversation.ToolUse(self.id, self.name, self.arguments)


def _as_parts(given: object) -> object:
    return [{"type": "text", "text": given}] if isinstance(given, str) else given


ResultPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
ResultParts: TypeAlias = Annotated[
    list[ResultPart],
    Field(fail_fast=True),
    at_most(MAX_PARTS, "parts"),
    BeforeValidator(_as_parts, json_schema_input_type=Text | list[ResultPart]),
]


class ToolResultPart(Object):
    """What the caller's tool returned."""

    type: Literal["tool_result"]
    tool_use_id: CallId = Field(description="The `id` of the `tool_use` that it answers.")
    content: ResultParts = Field(default_factory=list)
    is_error: StrictBool = False

    def record(self) -> conversation.ToolResult:
        parts = tuple(part.record() for part in self.content)
        return conversation.ToolResult(self.tool_use_id, parts, self.is_error)


Part = Annotated[
    TextPart | ThinkingPart | ImagePart | ToolUsePart | ToolResultPart, Field(discriminator="type")
]
Parts: TypeAlias = Annotated[
    list[Part],
    Field(fail_fast=True),
    Field(min_length=1),
    at_most(MAX_PARTS, "parts"),
    BeforeValidator(_as_parts, json_schema_input_type=Text | list[Part]),
]
_ALLOWED: dict[str, tuple[type[Object], ...]] = {
    "system": (TextPart,),
    "user": (TextPart, ImagePart, ToolResultPart),
    "assistant": (TextPart, ThinkingPart, ToolUsePart),
}


class MessageIn(Object):
    role: Literal["system", "user", "assistant"] = Field(
        description="`system` only at the start, in place of the member `system`."
    )
    content: Parts = Field(description="A text, or parts.")

    @model_validator(mode="after")
    def _check_parts(self) -> MessageIn:
        for part in self.content:
            if not isinstance(part, _ALLOWED[self.role]):
                raise PydanticCustomError(
                    "part", f"a message of the role {self.role} has no {part.type} part"
                )
        return self

    @property
    def text(self) -> str:
        return "\n\n".join(part.text for part in self.content if isinstance(part, TextPart))


class ToolIn(Object):
    name: ToolName
    description: Text = ""
    parameters: JSONObject = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
        description="JSON Schema of the arguments.",
    )

    def record(self) -> conversation.Tool:
        return conversation.Tool(self.name, self.description, self.parameters)


Messages: TypeAlias = Annotated[
    list[MessageIn], Field(fail_fast=True), at_most(MAX_MESSAGES, "messages")
]
Tools: TypeAlias = Annotated[list[ToolIn], Field(fail_fast=True), at_most(MAX_TOOLS, "tools")]


def check_order(messages: Sequence[MessageIn]) -> None:
    """Raises `PydanticCustomError` if the messages make no conversation."""
    spoken = [message for message in messages if message.role != "system"]
    if not spoken or spoken[-1].role != "user":
        raise PydanticCustomError("messages", "the last of `messages` must be the user's")
    if any(message.role == "system" for message in messages[len(messages) - len(spoken) :]):
        raise PydanticCustomError("messages", "a message of the role system must come first")
    asked: set[str] = set()
    for part in (part for message in spoken for part in message.content):
        if isinstance(part, ToolUsePart):
            asked.add(part.id)
        elif isinstance(part, ToolResultPart) and part.tool_use_id not in asked:
            raise PydanticCustomError(
                "messages", "a tool_result answers no tool_use of an earlier message"
            )


def records(messages: Iterable[MessageIn]) -> tuple[conversation.Message, ...]:
    """Returns the conversation without the system's messages."""
    return tuple(
        conversation.Message(message.role, tuple(part.record() for part in message.content))
        for message in messages
        if message.role != "system"
    )


def system_of(messages: Iterable[MessageIn]) -> str:
    return "\n\n".join(message.text for message in messages if message.role == "system")
