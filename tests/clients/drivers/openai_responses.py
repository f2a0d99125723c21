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


SCENARIOS = {
    "whole": lambda: response(responses.create(**says("whole"))),
    "streamed": lambda: streamed("streamed"),
    "tools": lambda: response(responses.create(**says("tools"), tools=TOOLS)),
    "tools_streamed": lambda: streamed("tools", tools=TOOLS),
    "structured": structured,
    "broken": broken,
    "too_long": too_long,
}
