"""Reads the body of a request for a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from generation.api.asking import Asked
from generation.api.reading import (
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_TOOLS,
    Unsaid,
    at_least,
    fault,
    objects,
    optional,
    required,
)
from generation.conversation import (
    Image,
    Message,
    Options,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)

if TYPE_CHECKING:
    from generation.api.reading import Where
    from generation.conversation import Part

_EFFORTS = frozenset({"low", "medium", "high"})
# Read below.
_KNOWN = frozenset(
    [
        "messages",
        "model",
        "max_tokens",
        "stream",
        "system",
        "temperature",
        "top_p",
        "stop_sequences",
        "tools",
        "tool_choice",
        "output_config",
    ]
)
# They change nothing of the answer: who asks, what is cached, how quickly it comes.
_HINTS = frozenset(["metadata", "service_tier", "cache_control"])
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
_NO_THINKING = {"type": "disabled"}


def read(body: dict[str, Any]) -> Asked:
    """Returns what a client asks for. Raises `InvalidRequest`."""
    unsaid = Unsaid()
    for name, value in body.items():
        if name in _KNOWN or name in _HINTS or value is None or value == []:
            continue
        if name != "thinking" or value != _NO_THINKING:
            unsaid.add(name)
    limit = optional(int, body, "max_tokens", ())
    at_least(1, limit, "max_tokens")
    metadata = optional(dict, body, "metadata", ()) or {}
    is_streamed = bool(optional(bool, body, "stream", ()))
    return Asked(
        model=required(str, body, "model", ()),
        messages=_read_messages(body, unsaid),
        system=_read_system(body, unsaid),
        tools=_read_tools(body, unsaid),
        options=_read_options(body, unsaid),
        max_tokens=limit,
        is_streamed=is_streamed,
        wants_usage=True,
        metadata=metadata,
        unsaid=unsaid.names(),
    )


def _read_system(body: dict[str, Any], unsaid: Unsaid) -> str | None:
    given = body.get("system")
    if given is None or isinstance(given, str):
        return given
    parts = _read_content(body, "system", (), unsaid)
    return "\n\n".join(part.text for part in parts if isinstance(part, Text))


def _read_messages(body: dict[str, Any], unsaid: Unsaid) -> tuple[Message, ...]:
    messages: list[Message] = []
    given = required(list, body, "messages", ())
    for message, where in objects(given, ("messages",), MAX_MESSAGES):
        parts = _read_content(message, "content", where, unsaid)
        role = required(str, message, "role", where)
        if role == "user":
            messages.append(Message("user", parts))
        elif role == "assistant":
            messages.append(Message("assistant", parts))
        elif role == "system":
            unsaid.add(*where, "role")
        else:
            raise fault((*where, "role"), "must be user or assistant")
    if not messages:
        raise fault(("messages",), "must hold at least one message")
    return tuple(messages)


def _read_content(
    holder: dict[str, Any], name: str, where: Where, unsaid: Unsaid
) -> tuple[Part, ...]:
    content = holder.get(name)
    if isinstance(content, str):
        return (Text(content),)
    where = (*where, name)
    if content is None:
        raise fault(where, "is missing")
    if not isinstance(content, list):
        raise fault(where, "must be a string or an array of blocks")
    parts: list[Part] = []
    for block, at in objects(content, where, MAX_PARTS):
        part = _read_block(block, at, unsaid)
        if part is None:
            unsaid.add(*at, required(str, block, "type", at))
        else:
            parts.append(part)
    return tuple(parts)


def _read_block(block: dict[str, Any], where: Where, unsaid: Unsaid) -> Part | None:
    """Returns None for a kind of block that a conversation has no place for."""
    part: Part | None = None
    match required(str, block, "type", where):
        case "text":
            part = Text(required(str, block, "text", where))
        case "thinking":
            part = Thinking(
                required(str, block, "thinking", where),
                optional(str, block, "signature", where) or "",
            )
        case "redacted_thinking":
            part = Thinking("", required(str, block, "data", where), is_redacted=True)
        case "image":
            part = _read_image(block, where)
        case "tool_use":
            given = optional(dict, block, "input", where) or {}
            part = ToolUse(
                required(str, block, "id", where),
                required(str, block, "name", where),
                orjson.dumps(given).decode(),
            )
        case "tool_result":
            part = _read_result(block, where, unsaid)
    return part


def _read_image(block: dict[str, Any], where: Where) -> Image | None:
    source = required(dict, block, "source", where)
    where = (*where, "source")
    match source.get("type"):
        case "url":
            return Image(url=required(str, source, "url", where))
        case "base64":
            return Image(
                data=required(str, source, "data", where),
                media_type=required(str, source, "media_type", where),
            )
    return None  # a file of the vendor's


def _read_result(block: dict[str, Any], where: Where, unsaid: Unsaid) -> ToolResult:
    content = (
        _read_content(block, "content", where, unsaid) if block.get("content") is not None else ()
    )
    parts = []
    for part in content:
        if isinstance(part, Text | Image):
            parts.append(part)
        else:
            unsaid.add(*where, "content")
    return ToolResult(
        required(str, block, "tool_use_id", where),
        tuple(parts),
        is_error=bool(optional(bool, block, "is_error", where)),
    )


def _read_tools(body: dict[str, Any], unsaid: Unsaid) -> tuple[Tool, ...]:
    tools = []
    for tool, where in objects(optional(list, body, "tools", ()) or [], ("tools",), MAX_TOOLS):
        kind = optional(str, tool, "type", where) or "custom"
        if kind != "custom":
            unsaid.add(*where, kind)
            continue
        tools.append(
            Tool(
                required(str, tool, "name", where),
                optional(str, tool, "description", where) or "",
                optional(dict, tool, "input_schema", where) or {"type": "object"},
                is_strict=bool(optional(bool, tool, "strict", where)),
            )
        )
    return tuple(tools)


def _read_options(body: dict[str, Any], unsaid: Unsaid) -> Options:
    given = optional(dict, body, "tool_choice", ()) or {}
    kind = optional(str, given, "type", ("tool_choice",)) or ""
    choice = _CHOICES.get(kind, "")
    if kind == "tool":
        choice = required(str, given, "name", ("tool_choice",))
    elif kind and not choice:
        raise fault(("tool_choice", "type"), "must be auto, any, tool or none")
    is_single = optional(bool, given, "disable_parallel_tool_use", ("tool_choice",))
    effort, response_format = _read_output(body, unsaid)
    return Options(
        temperature=optional(float, body, "temperature", ()),
        top_p=optional(float, body, "top_p", ()),
        stop=tuple(map(str, optional(list, body, "stop_sequences", ()) or ())),
        reasoning_effort=effort,
        tool_choice=choice,
        parallel_tool_calls=None if is_single is None else not is_single,
        response_format=response_format,
    )


def _read_output(body: dict[str, Any], unsaid: Unsaid) -> tuple[str, dict[str, Any] | None]:
    """Returns the effort and the form of the answer, in the words of `Options`."""
    given = optional(dict, body, "output_config", ()) or {}
    effort = optional(str, given, "effort", ("output_config",)) or ""
    if effort and effort not in _EFFORTS:
        unsaid.add("output_config", "effort")
        effort = ""
    form = optional(dict, given, "format", ("output_config",))
    for name in given.keys() - {"effort", "format"}:
        unsaid.add("output_config", name)
    if form is None:
        return effort, None
    if form.get("type") != "json_schema":
        unsaid.add("output_config", "format")
        return effort, None
    schema = required(dict, form, "schema", ("output_config", "format"))
    described = {"name": "answer", "schema": schema, "strict": True}
    return effort, {"type": "json_schema", "json_schema": described}
