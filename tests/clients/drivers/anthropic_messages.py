"""anthropic-python, messages."""

from __future__ import annotations

from anthropic import Anthropic, RateLimitError
from target import KEY, MODEL, PIXEL, URL, calls_of, describe

client = Anthropic(base_url=URL, api_key=KEY, max_retries=0)
messages = client.messages


def tool(name, parameter):
    properties = {parameter: {"type": "string"}}
    return {"name": name, "input_schema": {"type": "object", "properties": properties}}


TOOLS = [tool("weather", "city"), tool("clock", "zone")]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["colour", "score"],
    "additionalProperties": False,
}


def says(scenario, **others):
    asked = [{"role": "user", "content": f"scenario:{scenario}"}]
    return {"model": MODEL, "max_tokens": 100, "messages": asked, **others}


def message(answer):
    blocks = answer.content
    return {
        "text": "".join(block.text for block in blocks if block.type == "text"),
        "calls": calls_of((b.name, b.input) for b in blocks if b.type == "tool_use"),
        "finish": answer.stop_reason,
        "tokens": [answer.usage.input_tokens, answer.usage.output_tokens],
    }


def raw():
    kinds = [event.type for event in messages.create(**says("streamed"), stream=True)]
    return [kind for kind in kinds if kind != "ping"]


def stream_helper(scenario, **others):
    with messages.stream(**says(scenario), **others) as stream:
        for _ in stream:
            pass
        return message(stream.get_final_message())


def image():
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [
        {"type": "text", "text": "scenario:image"},
        {"type": "image", "source": source},
    ]
    asked = [{"role": "user", "content": content}]
    return message(messages.create(model=MODEL, max_tokens=100, messages=asked))


def broken():
    text = ""
    try:
        with messages.stream(**says("broken")) as stream:
            for piece in stream.text_stream:
                text += piece
    except Exception as error:  # noqa: BLE001  # it is the result
        return {"text": text, **describe(error)}
    return {"text": text}


def limited():
    try:
        messages.create(**says("limited"))
    except RateLimitError as error:
        return {**describe(error), "after": error.response.headers["retry-after"]}


def leave():
    with messages.stream(**says("leave")) as stream:
        for piece in stream.text_stream:
            return {"text": piece}


form = {"format": {"type": "json_schema", "schema": SCHEMA}}
SCENARIOS = {
    "whole": lambda: message(messages.create(**says("whole"))),
    "raw": raw,
    "streamed": lambda: stream_helper("streamed"),
    "tools": lambda: message(messages.create(**says("tools"), tools=TOOLS)),
    "tools_streamed": lambda: stream_helper("tools", tools=TOOLS),
    "structured": lambda: message(messages.create(**says("structured"), output_config=form)),
    "image": image,
    "too_long": lambda: messages.create(**says("too_long")),
    "broken": broken,
    "limited": limited,
    "leave": leave,
}
