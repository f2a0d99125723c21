"""Writes a conversation as Anthropic's Messages API takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from generation.conversation import NO_OPTIONS, Image, Text, Thinking, ToolResult, ToolUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.conversation import Options, Part
    from generation.records import Prompt

_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def unknown_parameter(prompt: Prompt) -> str:
    """Returns what of the prompt this API has no place for, as a noun; '' if nothing."""
    options = prompt.options
    kind = (options.response_format or {}).get("type", "text")
    if kind == "json_schema" and _schema(options.response_format or {}) is None:
        return "response_format without a schema"
    if kind not in {"text", "json_schema"}:
        return f"response_format of the type {kind}"
    if options.temperature is not None and options.temperature > 1:
        return "a temperature above 1"
    for message in prompt.messages:
        for part in message.parts:
            if isinstance(part, Thinking) and not part.signature:
                return "thinking without a signature"
            if isinstance(part, ToolUse) and _input(part) is None:
                return "a tool call whose arguments are no JSON object"
    return ""


def write_messages(prompt: Prompt) -> list[dict[str, Any]]:
    return [
        {"role": message.role, "content": list(map(_write_part, message.parts))}
        for message in prompt.messages
    ]


def write_options(prompt: Prompt) -> dict[str, Any]:
    """Returns the members beside the messages, without those that the prompt leaves open."""
    options, members = prompt.options, dict[str, Any]()
    if prompt.tools:
        members["tools"] = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": tool.parameters or {"type": "object"},
                **({"strict": True} if tool.is_strict else {}),
            }
            for tool in prompt.tools
        ]
    if options is NO_OPTIONS:
        return members
    choice = _write_choice(options)
    if choice and prompt.tools:
        members["tool_choice"] = choice
    if options.stop:
        members["stop_sequences"] = list(options.stop)
    output: dict[str, Any] = {}
    if options.reasoning_effort:
        output["effort"] = options.reasoning_effort
    schema = _schema(options.response_format or {})
    if schema is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    if output:
        members["output_config"] = output
    for name in ("temperature", "top_p"):
        value = getattr(options, name)
        if value is not None:
            members[name] = value
    return members


def _write_choice(options: Options) -> dict[str, Any]:
    if not options.tool_choice and options.parallel_tool_calls is not False:
        return {}
    wanted = options.tool_choice or "auto"
    choice: dict[str, Any] = (
        {"type": _CHOICES[wanted]} if wanted in _CHOICES else {"type": "tool", "name": wanted}
    )
    if options.parallel_tool_calls is False and wanted != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _write_part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Thinking(_, signature, True):
            return {"type": "redacted_thinking", "data": signature}
        case Thinking(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case Image():
            return {"type": "image", "source": _write_source(part)}
        case ToolUse():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part)}
        case ToolResult():
            return {
                "type": "tool_result",
                "tool_use_id": part.tool_use_id,
                "content": list(map(_write_part, part.parts)),
                **({"is_error": True} if part.is_error else {}),
            }


def _write_source(image: Image) -> dict[str, str]:
    if image.url:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _input(call: ToolUse) -> dict[str, Any] | None:
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _schema(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    return schema if isinstance(schema, dict) else None
