"""Writes a conversation as chat completions take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.conversation import NO_OPTIONS, Image, Text, Thinking, ToolResult, ToolUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from generation.conversation import Message, Part
    from generation.records import Prompt

_CHOICES = frozenset({"auto", "none", "required"})


def unknown_parameter(prompt: Prompt, *, is_official: bool) -> str:
    """Returns what of the prompt chat completions have no place for, as a noun; '' if nothing."""
    for message in prompt.messages:
        for part in message.parts:
            if isinstance(part, Thinking) and (part.signature or is_official):
                return "thinking in a message"
            if isinstance(part, Image) and message.role == "assistant":
                return "an image in a message of the assistant"
            if isinstance(part, ToolResult) and any(isinstance(p, Image) for p in part.parts):
                return "an image in a tool's result"
    return ""


def write_messages(prompt: Prompt) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for message in prompt.messages:
        write = _write_user if message.role == "user" else _write_assistant
        messages += write(message)
    return messages


def write_options(prompt: Prompt) -> dict[str, Any]:
    """Returns the members beside the messages, without those that the prompt leaves open."""
    options, members = prompt.options, dict[str, Any]()
    if prompt.tools:
        members["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    **({"strict": True} if tool.is_strict else {}),
                },
            }
            for tool in prompt.tools
        ]
    if options is NO_OPTIONS:
        return members
    if options.tool_choice:
        members["tool_choice"] = (
            options.tool_choice
            if options.tool_choice in _CHOICES
            else {"type": "function", "function": {"name": options.tool_choice}}
        )
    if options.stop:
        members["stop"] = list(options.stop)
    if options.reasoning_effort:
        members["reasoning_effort"] = options.reasoning_effort
    for name in ("temperature", "top_p", "parallel_tool_calls", "response_format"):
        value = getattr(options, name)
        if value is not None:
            members[name] = value
    return members


def _write_user(message: Message) -> Iterator[dict[str, Any]]:
    """The results of tools first, because they have to follow the calls at once."""
    said: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            text = "".join(inner.text for inner in part.parts if isinstance(inner, Text))
            # There is no other place for it.
            text = f"Error: {text}" if part.is_error else text
            yield {"role": "tool", "tool_call_id": part.tool_use_id, "content": text}
        else:
            said.append(part)
    if said:
        yield {"role": "user", "content": _write_content(said)}


def _write_assistant(message: Message) -> Iterator[dict[str, Any]]:
    texts = [part for part in message.parts if isinstance(part, Text)]
    written: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(part.text for part in texts) if texts else None,
    }
    thoughts = [part.text for part in message.parts if isinstance(part, Thinking)]
    if thoughts:
        written["reasoning_content"] = "".join(thoughts)
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        for part in message.parts
        if isinstance(part, ToolUse)
    ]
    if calls:
        written["tool_calls"] = calls
    yield written


def _write_content(parts: list[Part]) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text  # some servers take no list
    return [
        {"type": "image_url", "image_url": {"url": _write_url(part)}}
        if isinstance(part, Image)
        else {"type": "text", "text": getattr(part, "text", "")}
        for part in parts
    ]


def _write_url(image: Image) -> str:
    return image.url or f"data:{image.media_type};base64,{image.data}"
