"""Reads the body of a request for a response: OpenAI's newer protocol, without its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.api.asking import Asked
from generation.api.openai.requests import read_effort, read_image_url
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
from generation.conversation import Message, Options, Text, Tool, ToolResult, ToolUse

if TYPE_CHECKING:
    from generation.api.reading import Where
    from generation.conversation import Image, Part

# Read below.
_KNOWN = frozenset(
    {
        *("background", "input", "instructions", "max_output_tokens", "model"),
        *("parallel_tool_calls", "reasoning", "store", "stream", "temperature", "text"),
        *("tool_choice", "tools", "top_p"),
    }
)
# They change nothing of the answer. docs/clients.md lists them, and the others that are ignored.
_HINTS = frozenset(
    {
        *("client_metadata", "metadata", "prompt_cache_key", "prompt_cache_options"),
        *("prompt_cache_retention", "safety_identifier", "service_tier", "stream_options", "user"),
    }
)
_INCLUDABLE = ["reasoning.encrypted_content"]  # clients ask for it on every request
_OF_ITEM = frozenset(
    {
        *("type", "id", "status", "phase", "role", "content"),
        *("call_id", "name", "arguments", "output"),
    }
)
_OF_PART = frozenset(
    {
        *("type", "text", "refusal", "image_url", "detail", "file_id"),
        *("annotations", "logprobs"),
    }
)
_OF_TOOL = frozenset({"type", "name", "description", "parameters", "strict"})
_OF_REASONING = frozenset({"effort", "summary", "generate_summary"})
_NEUTRAL: dict[str, Any] = {"truncation": "disabled", "top_logprobs": 0}
# Each needs an answer that is kept for the next request.
_STATE = ("previous_response_id", "conversation", "prompt")


def read(body: dict[str, Any]) -> Asked:
    """Returns what a client asks for. Raises `InvalidRequest`."""
    unsaid = Unsaid()
    for name in _STATE:
        if body.get(name):
            raise fault((name,), "is not supported: this service keeps no responses")
    is_background = bool(optional(bool, body, "background", ()))
    is_stored = optional(bool, body, "store", ())
    if is_stored and not is_background:
        raise fault(("store",), "is for background responses only: no others are kept")
    if is_background and is_stored is False:
        raise fault(("store",), "must not be false: a background response is kept")
    for name, value in body.items():
        is_read = name in _KNOWN or name in _HINTS or name in _STATE or value is None
        if name == "include":
            for each in optional(list, body, "include", ()) or ():
                if each not in _INCLUDABLE:
                    unsaid.add("include", str(each))
        elif not is_read and (name not in _NEUTRAL or value != _NEUTRAL[name]):
            unsaid.add(name)
    limit = optional(int, body, "max_output_tokens", ())
    at_least(1, limit, "max_output_tokens")
    system, messages = _read_input(body, unsaid)
    return Asked(
        model=required(str, body, "model", ()),
        messages=messages,
        system=system,
        tools=_read_tools(body, unsaid),
        options=_read_options(body, unsaid),
        max_tokens=limit,
        is_streamed=bool(optional(bool, body, "stream", ())),
        is_background=is_background,
        wants_usage=True,
        metadata=optional(dict, body, "metadata", ()) or {},
        unsaid=unsaid.names(),
    )


def _read_input(body: dict[str, Any], unsaid: Unsaid) -> tuple[str | None, tuple[Message, ...]]:
    """Returns the instructions, and the items as messages."""
    given = body.get("input")
    instructions = [text] if (text := optional(str, body, "instructions", ())) else []
    messages: list[Message] = []
    if isinstance(given, str):
        messages.append(Message("user", (Text(given),)))
        given = []
    if not isinstance(given, list):
        raise fault(("input",), "must be a string or an array of items")
    for item, where in objects(given, ("input",), MAX_MESSAGES):
        kind = optional(str, item, "type", where) or "message"
        unsaid.add_others(item, _OF_ITEM, where)
        if kind == "message":
            _add_message(item, where, unsaid, instructions, messages)
        elif kind == "function_call":
            call = ToolUse(
                required(str, item, "call_id", where),
                required(str, item, "name", where),
                optional(str, item, "arguments", where) or "",
            )
            _add(messages, Message("assistant", (call,)))
        elif kind == "function_call_output":
            parts = _read_parts(item, "output", where, unsaid)
            result = ToolResult(required(str, item, "call_id", where), parts)
            _add(messages, Message("user", (result,)))
        else:
            unsaid.add(*where, kind)
    if not messages:
        raise fault(("input",), "must hold at least one message of a user")
    return "\n\n".join(instructions) or None, tuple(messages)


def _add_message(
    item: dict[str, Any],
    where: Where,
    unsaid: Unsaid,
    instructions: list[str],
    messages: list[Message],
) -> None:
    role = required(str, item, "role", where)
    parts = _read_parts(item, "content", where, unsaid)
    if role in {"system", "developer"}:
        if messages:
            unsaid.add(*where, "role")  # in the middle of the conversation
        instructions.append("".join(part.text for part in parts if isinstance(part, Text)))
    elif role == "user":
        messages.append(Message("user", parts))
    elif role == "assistant":
        _add(messages, Message("assistant", parts))
    else:
        raise fault((*where, "role"), "must be system, developer, user or assistant")


def _add(messages: list[Message], new: Message) -> None:
    """An answer's text and calls are one message, and so are the results of its calls."""
    last = messages[-1] if messages else None
    is_more = last is not None and last.role == new.role
    if last is not None and is_more and (new.role == "assistant" or _is_result(last.parts[-1:])):
        messages[-1] = Message(new.role, (*last.parts, *new.parts))
    else:
        messages.append(new)


def _is_result(parts: tuple[Part, ...]) -> bool:
    return any(isinstance(part, ToolResult) for part in parts)


def _read_parts(
    item: dict[str, Any], name: str, where: Where, unsaid: Unsaid
) -> tuple[Text | Image, ...]:
    content = item.get(name)
    if isinstance(content, str):
        return (Text(content),)
    where = (*where, name)
    if not isinstance(content, list):
        raise fault(where, "must be a string or an array of parts")
    parts: list[Text | Image] = []
    for part, at in objects(content, where, MAX_PARTS):
        kind = required(str, part, "type", at)
        unsaid.add_others(part, _OF_PART, at)
        if kind in {"input_text", "output_text", "text"}:
            parts.append(Text(required(str, part, "text", at)))
        elif kind == "refusal":
            parts.append(Text(required(str, part, "refusal", at)))
        elif kind == "input_image" and part.get("image_url"):
            if part.get("detail") not in {None, "auto"}:
                unsaid.add(*at, "detail")
            parts.append(read_image_url(required(str, part, "image_url", at), (*at, "image_url")))
        else:
            unsaid.add(*at, kind)
    return tuple(parts)


def _read_tools(body: dict[str, Any], unsaid: Unsaid) -> tuple[Tool, ...]:
    tools = []
    for tool, where in objects(optional(list, body, "tools", ()) or [], ("tools",), MAX_TOOLS):
        kind = required(str, tool, "type", where)
        if kind != "function":
            unsaid.add(*where, kind)
            continue
        unsaid.add_others(tool, _OF_TOOL, where)
        tools.append(
            Tool(
                required(str, tool, "name", where),
                optional(str, tool, "description", where) or "",
                optional(dict, tool, "parameters", where) or {"type": "object"},
                is_strict=bool(optional(bool, tool, "strict", where)),
            )
        )
    return tuple(tools)


def _read_options(body: dict[str, Any], unsaid: Unsaid) -> Options:
    reasoning = optional(dict, body, "reasoning", ()) or {}
    unsaid.add_others(reasoning, _OF_REASONING, ("reasoning",))
    return Options(
        temperature=optional(float, body, "temperature", ()),
        top_p=optional(float, body, "top_p", ()),
        reasoning_effort=read_effort(reasoning, "effort", ("reasoning",), unsaid),
        tool_choice=_read_choice(body, unsaid),
        parallel_tool_calls=optional(bool, body, "parallel_tool_calls", ()),
        response_format=_read_format(body, unsaid),
    )


def _read_choice(body: dict[str, Any], unsaid: Unsaid) -> str:
    choice = body.get("tool_choice")
    if choice is None or isinstance(choice, str):
        return choice or ""
    given = required(dict, body, "tool_choice", ())
    kind = required(str, given, "type", ("tool_choice",))
    if kind != "function":
        unsaid.add("tool_choice", kind)
        return ""
    return required(str, given, "name", ("tool_choice",))


def _read_format(body: dict[str, Any], unsaid: Unsaid) -> dict[str, Any] | None:
    """Returns the form of the answer, in the words of `Options`."""
    text = optional(dict, body, "text", ()) or {}
    for name in text.keys() - {"format"}:
        unsaid.add("text", name)
    form = optional(dict, text, "format", ("text",))
    if form is None or form.get("type") == "text":
        return None
    if form.get("type") != "json_schema":
        return form
    described = {name: value for name, value in form.items() if name != "type"}
    return {"type": "json_schema", "json_schema": described}
