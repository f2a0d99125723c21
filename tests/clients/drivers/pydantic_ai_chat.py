"""Pydantic AI with its OpenAI model."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from target import KEY, MODEL, PIXEL, URL, clock, describe, weather


class Colour(BaseModel):
    colour: str
    score: int


def agent(**others):
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    return Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)), **others)


def result(done):
    usage = done.usage() if callable(done.usage) else done.usage
    output = done.output
    return {
        "output": output.model_dump() if isinstance(output, BaseModel) else output,
        "tokens": [usage.input_tokens, usage.output_tokens],
    }


async def stream(scenario, **others):
    texts = []
    try:
        async with agent(**others).run_stream(f"scenario:{scenario}") as done:
            async for text in done.stream_text(delta=True, debounce_by=None):
                texts.append(text)
                if scenario == "leave":
                    return {"text": texts}
            usage = done.usage() if callable(done.usage) else done.usage
            return {"text": "".join(texts), "tokens": [usage.input_tokens, usage.output_tokens]}
    except Exception as error:  # noqa: BLE001  # it is the result
        return {"text": "".join(texts), **describe(error)}


def run(scenario, **others):
    return result(agent(**others).run_sync(f"scenario:{scenario}"))


def image():
    import base64

    picture = BinaryContent(base64.b64decode(PIXEL), media_type="image/png")
    return result(agent().run_sync(["scenario:image", picture]))


TOOLS = {"tools": [weather, clock]}
SCENARIOS = {
    "whole": lambda: run("whole"),
    "streamed": lambda: asyncio.run(stream("streamed")),
    "tools": lambda: run("tools", **TOOLS),
    "tools_streamed": lambda: asyncio.run(stream("tools", **TOOLS)),
    "structured": lambda: run("structured", output_type=NativeOutput(Colour)),
    "image": image,
    "too_long": lambda: run("too_long"),
    "broken": lambda: asyncio.run(stream("broken")),
    "limited": lambda: run("limited"),
    "leave": lambda: asyncio.run(stream("leave")),
}
