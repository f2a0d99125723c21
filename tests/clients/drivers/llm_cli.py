"""Simon Willison's llm, as a library."""

from __future__ import annotations

import base64

import llm
from llm.default_plugins.openai_models import Chat
from target import KEY, MODEL, PIXEL, URL, calls_of, clock, describe, weather

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["colour", "score"],
}
model = Chat(
    MODEL,
    model_name=MODEL,
    api_base=f"{URL}/v1",
    supports_tools=True,
    supports_schema=True,
    vision=True,
)


def ask(scenario, *, stream=False, **others):
    answer = model.prompt(f"scenario:{scenario}", key=KEY, stream=stream, **others)
    text = answer.text()
    usage = answer.usage()
    return {
        "text": text,
        "calls": calls_of((call.name, call.arguments) for call in answer.tool_calls()),
        "tokens": [usage.input, usage.output],
    }


def image():
    picture = llm.Attachment(type="image/png", content=base64.b64decode(PIXEL))
    return ask("image", attachments=[picture])


def broken():
    text = ""
    try:
        for piece in model.prompt("scenario:broken", key=KEY):
            text += piece
    except Exception as error:  # noqa: BLE001  # it is the result
        return {"text": text, **describe(error)}
    return {"text": text}


TOOLS = {"tools": [weather, clock]}
SCENARIOS = {
    "whole": lambda: ask("whole"),
    "streamed": lambda: ask("streamed", stream=True),
    "tools": lambda: ask("tools", **TOOLS),
    "tools_streamed": lambda: ask("tools", stream=True, **TOOLS),
    "structured": lambda: ask("structured", schema=SCHEMA),
    "image": image,
    "too_long": lambda: ask("too_long"),
    "broken": broken,
    "limited": lambda: ask("limited"),
}
