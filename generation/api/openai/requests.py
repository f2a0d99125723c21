"""Reads the body of a chat completion's request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        "max_completion_tokens",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
    ]
)
# They change nothing of the answer: who asks, what is cached, what the vendor keeps.
_HINTS = frozenset(
    [
        "user",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
    ]
)
# What a member says that is as good as not sent.
_NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "logit_bias": {},
    "modalities": ["text"],
    "functions": [],
}
# Their calls come as tool calls in a stream, which who sends them does not know.
_WHOLE_ONLY = ("functions", "function_call")


def read(body: dict[str, Any]) -> Asked:
    """Returns what a client asks for. Raises `InvalidRequest`."""
    unsaid = Unsaid()
    if optional(int, body, "n", ()) not in {None, 1}:
        raise fault(("n",), "must be 1: one answer is made for each request")
    is_streamed = bool(optional(bool, body, "stream", ()))
    stream_options = optional(dict, body, "stream_options", ()) or {}
    for name, value in body.items():
        if name in _KNOWN or name in _HINTS or _says_nothing(name, value):
            continue
        if is_streamed and name in _WHOLE_ONLY:
            raise fault((name,), "goes with a whole answer only, and not with `stream`")
        unsaid.add(name)
    system, messages = _read_messages(body, unsaid)
    return Asked(
        model=required(str, body, "model", ()),
        messages=messages,
        system=system,
        tools=_read_tools(body, unsaid),
        options=_read_options(body, unsaid),
        max_tokens=_read_limit(body),
        is_streamed=is_streamed,
        wants_usage=bool(optional(bool, stream_options, "include_usage", ("stream_options",))),
        metadata=optional(dict, body, "metadata", ()) or {},
        unsaid=unsaid.names(),
    )


def read_embeddings(body: dict[str, Any]) -> Asked:
    """Returns what a client asks for: texts, or tokens, which no person reads. Raises
    `InvalidRequest`."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise fault(("input",), "must be a string, or an array of strings or of tokens")
    kept = [each if isinstance(each, str) else "[tokens]" for each in texts[:MAX_PARTS]]
    return Asked(
        model=required(str, body, "model", ()),
        messages=(Message("user", tuple(map(Text, kept))),),
        system="",
    )


def _says_nothing(name: str, value: object) -> bool:
    return value is None or (name in _NEUTRAL and value == _NEUTRAL[name])


def _read_limit(body: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = optional(int, body, name, ())
        at_least(1, limit, name)
        if limit is not None:
            return limit
    return None


def _read_messages(body: dict[str, Any], unsaid: Unsaid) -> tuple[str | None, tuple[Message, ...]]:
    """Returns the system's messages as one, and the others."""
    instructions: list[str] = []
    messages: list[Message] = []
    given = required(list, body, "messages", ())
    for message, where in objects(given, ("messages",), MAX_MESSAGES):
        role = required(str, message, "role", where)
        if message.get("name"):
            unsaid.add(*where, "name")
        if role in {"system", "developer"}:
            if messages:
                unsaid.add(*where, "role")  # in the middle of the conversation
            instructions.append(_read_text(message, where, unsaid))
        elif role == "user":
            messages.append(Message("user", _read_parts(message, where, unsaid)))
        elif role == "assistant":
            messages.append(Message("assistant", _read_answer(message, where, unsaid)))
        elif role == "tool":
            _add_result(messages, message, where, unsaid)
        elif role == "function":
            unsaid.add(*where, "role")
        else:
            raise fault((*where, "role"), "must be system, developer, user, assistant or tool")
    if not messages:
        raise fault(("messages",), "must hold at least one message of a user")
    return "\n\n".join(instructions) if instructions else None, tuple(messages)


def _read_text(message: dict[str, Any], where: Where, unsaid: Unsaid) -> str:
    parts = _read_parts(message, where, unsaid)
    return "".join(part.text for part in parts if isinstance(part, Text))


def _read_parts(message: dict[str, Any], where: Where, unsaid: Unsaid) -> tuple[Text | Image, ...]:
    content = message.get("content")
    if isinstance(content, str):
        return (Text(content),)
    if content is None:
        raise fault((*where, "content"), "is missing")
    if not isinstance(content, list):
        raise fault((*where, "content"), "must be a string or an array of parts")
    read: list[Text | Image] = []
    for part, at in objects(content, (*where, "content"), MAX_PARTS):
        kind = required(str, part, "type", at)
        if kind == "text":
            read.append(Text(required(str, part, "text", at)))
        elif kind == "refusal":
            read.append(Text(required(str, part, "refusal", at)))
        elif kind == "image_url":
            read.append(_read_image(part, at, unsaid))
        else:
            unsaid.add(*at, kind)
    return tuple(read)


def _read_image(part: dict[str, Any], where: Where, unsaid: Unsaid) -> Image:
    image = required(dict, part, "image_url", where)
    where = (*where, "image_url")
    if image.get("detail") not in {None, "auto"}:
        unsaid.add(*where, "detail")
    return read_image_url(required(str, image, "url", where), (*where, "url"))


def read_image_url(url: str, where: Where) -> Image:
    if not url.startswith("data:"):
        return Image(url=url)
    head, comma, data = url[5:].partition(",")
    media_type, _, coding = head.partition(";")
    if not comma or coding != "base64" or not media_type:
        raise fault(where, "a data: URL must be data:image/…;base64,…")
    return Image(data=data, media_type=media_type)


def _read_answer(message: dict[str, Any], where: Where, unsaid: Unsaid) -> tuple[Part, ...]:
    """What the assistant said and asked for."""
    parts: list[Part] = []
    thought = optional(str, message, "reasoning_content", where)
    if thought:
        parts.append(Thinking(thought))
    if message.get("content"):
        parts += _read_parts(message, where, unsaid)
    if refusal := optional(str, message, "refusal", where):
        parts.append(Text(refusal))
    calls = optional(list, message, "tool_calls", where) or []
    for call, at in objects(calls, (*where, "tool_calls"), MAX_PARTS):
        function = optional(dict, call, "function", at)
        if function is None:
            unsaid.add(*at, optional(str, call, "type", at) or "type")
            continue
        name = required(str, function, "name", (*at, "function"))
        arguments = optional(str, function, "arguments", (*at, "function")) or ""
        parts.append(ToolUse(required(str, call, "id", at), name, arguments))
    for name in ("audio", "function_call"):
        if message.get(name):
            unsaid.add(*where, name)
    return tuple(parts)


def _add_result(
    messages: list[Message], message: dict[str, Any], where: Where, unsaid: Unsaid
) -> None:
    """The results of one answer's calls are one message of the user's."""
    result = ToolResult(
        required(str, message, "tool_call_id", where), _read_parts(message, where, unsaid)
    )
    if messages and any(isinstance(part, ToolResult) for part in messages[-1].parts):
        messages[-1] = Message("user", (*messages[-1].parts, result))
    else:
        messages.append(Message("user", (result,)))


def _read_tools(body: dict[str, Any], unsaid: Unsaid) -> tuple[Tool, ...]:
    tools = []
    for tool, where in objects(optional(list, body, "tools", ()) or [], ("tools",), MAX_TOOLS):
        function = optional(dict, tool, "function", where)
        if function is None:
            unsaid.add(*where, optional(str, tool, "type", where) or "type")
            continue
        at = (*where, "function")
        tools.append(
            Tool(
                required(str, function, "name", at),
                optional(str, function, "description", at) or "",
                optional(dict, function, "parameters", at) or {"type": "object"},
                is_strict=bool(optional(bool, function, "strict", at)),
            )
        )
    return tuple(tools)


def _read_options(body: dict[str, Any], unsaid: Unsaid) -> Options:
    return Options(
        temperature=optional(float, body, "temperature", ()),
        top_p=optional(float, body, "top_p", ()),
        stop=_read_stop(body),
        reasoning_effort=read_effort(body, "reasoning_effort", (), unsaid),
        tool_choice=_read_choice(body, unsaid),
        parallel_tool_calls=optional(bool, body, "parallel_tool_calls", ()),
        response_format=optional(dict, body, "response_format", ()),
    )


def read_effort(holder: dict[str, Any], name: str, where: Where, unsaid: Unsaid) -> str:
    effort = optional(str, holder, name, where) or ""
    if not effort or effort in _EFFORTS:
        return effort
    unsaid.add(*where, name)
    return ""


def _read_stop(body: dict[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    if isinstance(stop, str):
        return (stop,)
    given = optional(list, body, "stop", ()) or []
    if not all(isinstance(each, str) for each in given):
        raise fault(("stop",), "must be a string or an array of strings")
    return tuple(given)


def _read_choice(body: dict[str, Any], unsaid: Unsaid) -> str:
    choice = body.get("tool_choice")
    if choice is None or isinstance(choice, str):
        return choice or ""
    given = required(dict, body, "tool_choice", ())
    function = optional(dict, given, "function", ("tool_choice",))
    if function is None:
        unsaid.add("tool_choice", optional(str, given, "type", ("tool_choice",)) or "type")
        return ""
    return required(str, function, "name", ("tool_choice", "function"))
