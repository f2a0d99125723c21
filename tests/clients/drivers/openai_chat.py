"""openai-python, chat completions."""

from __future__ import annotations

from openai import OpenAI, RateLimitError
from pydantic import BaseModel
from target import KEY, MODEL, PIXEL, URL, calls_of, describe

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
chat = client.chat.completions


class Colour(BaseModel):
    colour: str
    score: int


def tool(name, parameter):
    parameters = {
        "type": "object",
        "properties": {parameter: {"type": "string"}},
        "required": [parameter],
        "additionalProperties": False,
    }
    function = {"name": name, "parameters": parameters, "strict": True}
    return {"type": "function", "function": function}


TOOLS = [tool("weather", "city"), tool("clock", "zone")]
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def says(scenario):
    return {"model": MODEL, "messages": [{"role": "user", "content": f"scenario:{scenario}"}]}


def completion(answer):
    choice = answer.choices[0]
    calls = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or []]
    return {
        "text": choice.message.content,
        "calls": calls_of(calls),
        "finish": choice.finish_reason,
        "tokens": [answer.usage.prompt_tokens, answer.usage.completion_tokens],
    }


def streamed():
    text, finish, tokens = "", [], []
    for chunk in chat.create(**says("streamed"), **WITH_USAGE):
        if chunk.usage:
            tokens.append([chunk.usage.prompt_tokens, chunk.usage.completion_tokens])
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish += [choice.finish_reason] if choice.finish_reason else []
    return {"text": text, "finish": finish, "tokens": tokens}


def stream_helper(scenario, **others):
    options = {"stream_options": {"include_usage": True}}
    with chat.stream(**says(scenario), **options, **others) as stream:
        for _ in stream:
            pass
        return completion(stream.get_final_completion())


def structured():
    answer = chat.parse(**says("structured"), response_format=Colour)
    return answer.choices[0].message.parsed.model_dump()


def image():
    content = [
        {"type": "text", "text": "scenario:image"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    return completion(chat.create(model=MODEL, messages=[{"role": "user", "content": content}]))


def broken():
    text = ""
    try:
        for chunk in chat.create(**says("broken"), stream=True):
            text += chunk.choices[0].delta.content or ""
    except Exception as error:  # noqa: BLE001  # it is the result
        return {"text": text, **describe(error)}
    return {"text": text}


def limited():
    try:
        chat.create(**says("limited"))
    except RateLimitError as error:
        return {**describe(error), "after": error.response.headers["retry-after"]}


def too_long():
    try:
        chat.create(**says("too_long"))
    except Exception as error:  # noqa: BLE001  # it is the result
        return {**describe(error), "code": error.code}


def leave():
    stream = chat.create(**says("leave"), stream=True)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    stream.close()
    return {"text": chunk.choices[0].delta.content}


SCENARIOS = {
    "whole": lambda: completion(chat.create(**says("whole"))),
    "streamed": streamed,
    "stream_helper": lambda: stream_helper("streamed"),
    "tools": lambda: completion(chat.create(**says("tools"), tools=TOOLS)),
    "tools_streamed": lambda: stream_helper("tools", tools=TOOLS),
    "structured": structured,
    "structured_streamed": lambda: stream_helper("structured", response_format=Colour),
    "image": image,
    "too_long": too_long,
    "broken": broken,
    "limited": limited,
    "leave": leave,
}
