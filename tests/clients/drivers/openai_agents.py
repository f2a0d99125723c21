"""OpenAI Agents with chat completions."""

from __future__ import annotations

import asyncio

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from target import KEY, MODEL, PIXEL, URL, clock, describe, weather

set_tracing_disabled(True)


class Colour(BaseModel):
    colour: str
    score: int


def agent(**others):
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    model = OpenAIChatCompletionsModel(MODEL, client)
    settings = ModelSettings(include_usage=True)
    return Agent("tester", model=model, model_settings=settings, **others)


def result(done):
    output, usage = done.final_output, done.context_wrapper.usage
    return {
        "output": output.model_dump() if isinstance(output, BaseModel) else output,
        "tokens": [usage.input_tokens, usage.output_tokens],
    }


def run(asked, **others):
    async def whole():
        return result(await Runner.run(agent(**others), asked))

    return asyncio.run(whole())


async def stream(scenario, **others):
    text = ""
    done = Runner.run_streamed(agent(**others), f"scenario:{scenario}")
    try:
        async for event in done.stream_events():
            if getattr(getattr(event, "data", None), "type", "") == "response.output_text.delta":
                text += event.data.delta
                if scenario == "leave":
                    done.cancel()
                    return {"text": text}
    except Exception as error:  # noqa: BLE001  # it is the result
        return {"text": text, **describe(error)}
    return {"text": text, **result(done)}


def image():
    url = f"data:image/png;base64,{PIXEL}"
    content = [
        {"type": "input_text", "text": "scenario:image"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]
    return run([{"role": "user", "content": content}])


TOOLS = {"tools": [function_tool(weather), function_tool(clock)]}
SCENARIOS = {
    "whole": lambda: run("scenario:whole"),
    "streamed": lambda: asyncio.run(stream("streamed")),
    "tools": lambda: run("scenario:tools", **TOOLS),
    "tools_streamed": lambda: asyncio.run(stream("tools", **TOOLS)),
    "structured": lambda: run("scenario:structured", output_type=Colour),
    "image": image,
    "too_long": lambda: run("scenario:too_long"),
    "broken": lambda: asyncio.run(stream("broken")),
    "limited": lambda: run("scenario:limited"),
    "leave": lambda: asyncio.run(stream("leave")),
}
