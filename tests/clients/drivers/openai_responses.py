"""openai-python, responses."""

from __future__ import annotations

from openai import OpenAI
from pydantic import BaseModel
from target import KEY, MODEL, URL, calls_of, describe

responses = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0).responses


class Colour(BaseModel):
    colour: str
    score: int


def tool(name, parameter):
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}}
    return {"type": "function", "name": name, "parameters": parameters, "strict": False}


TOOLS = [tool("weather", "city"), tool("clock", "zone")]


def says(scenario):
    return {"model": MODEL, "input": f"scenario:{scenario}", "store": False}


def response(answer):
    calls = [(item.name, item.arguments) for item in answer.output if item.type == "function_call"]
    return {
        "text": answer.output_text,
        "calls": calls_of(calls),
        "tokens": [answer.usage.input_tokens, answer.usage.output_tokens],
    }


def streamed(scenario, **others):
    with responses.stream(**says(scenario), **others) as stream:
        for _ in stream:
            pass
        return response(stream.get_final_response())


def broken():
    text = ""
    for event in responses.create(**says("broken"), stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.failed":
            return {"text": text, "error": event.response.error.code}


def structured():
    parsed = responses.parse(**says("structured"), text_format=Colour).output_parsed
    return parsed.model_dump()


def too_long():
    try:
        responses.create(**says("too_long"))
    except Exception as error:  # noqa: BLE001  # it is the result
        return {**describe(error), "code": error.code}


def follow(name, after=None):
    """The rest of a stream, read to its end."""
    more = {} if after is None else {"starting_after": after}
    return list(responses.retrieve(name, stream=True, **more))


def background():
    begun = responses.create(**{**says("whole"), "store": True}, background=True)
    follow(begun.id)
    return response(responses.retrieve(begun.id))


def resumed():
    """Breaks off after the first word, and comes back."""
    text, last = "", None
    stream = responses.create(**{**says("streamed"), "store": True}, background=True, stream=True)
    for event in stream:
        if event.type == "response.created":
            name = event.response.id
        last = event.sequence_number
        if event.type == "response.output_text.delta":
            text += event.delta
            break
    stream.close()
    rest = follow(name, last)
    text += "".join(event.delta for event in rest if event.type == "response.output_text.delta")
    return {"text": text, "ended": rest[-1].type}


def cancelled():
    begun = responses.create(**{**says("leave"), "store": True}, background=True)
    while begun.status == "queued":
        begun = responses.retrieve(begun.id)
    return [begun.status, responses.cancel(begun.id).status]


SCENARIOS = {
    "background": background,
    "resumed": resumed,
    "cancelled": cancelled,
    "whole": lambda: response(responses.create(**says("whole"))),
    "streamed": lambda: streamed("streamed"),
    "tools": lambda: response(responses.create(**says("tools"), tools=TOOLS)),
    "tools_streamed": lambda: streamed("tools", tools=TOOLS),
    "structured": structured,
    "broken": broken,
    "too_long": too_long,
}
