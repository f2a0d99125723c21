"""LangChain's ChatAnthropic."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from target import KEY, MODEL, PIXEL, URL, calls_of, clock, describe, weather

model = ChatAnthropic(base_url=URL, api_key=KEY, model=MODEL, max_retries=0, max_tokens=100)
with_tools = model.bind_tools([tool(weather), tool(clock)])


def message(answer):
    usage = answer.usage_metadata
    return {
        "text": answer.text,
        "calls": calls_of((call["name"], call["args"]) for call in answer.tool_calls),
        "tokens": [usage["input_tokens"], usage["output_tokens"]],
    }


def streamed(chain, scenario):
    whole = None
    for chunk in chain.stream(f"scenario:{scenario}"):
        whole = chunk if whole is None else whole + chunk
    return message(whole)


def image():
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "text", "text": "scenario:image"}, {"type": "image", "source": source}]
    return message(model.invoke([{"role": "user", "content": content}]))


def broken():
    text = ""
    try:
        for chunk in model.stream("scenario:broken"):
            text += chunk.text
    except Exception as error:  # noqa: BLE001  # it is the result
        return {"text": text, **describe(error)}
    return {"text": text}


def leave():
    stream = model.stream("scenario:leave")
    text = next(chunk.text for chunk in stream if chunk.text)
    stream.close()
    return {"text": text}


SCENARIOS = {
    "whole": lambda: message(model.invoke("scenario:whole")),
    "streamed": lambda: streamed(model, "streamed"),
    "tools": lambda: message(with_tools.invoke("scenario:tools")),
    "tools_streamed": lambda: streamed(with_tools, "tools"),
    "image": image,
    "too_long": lambda: model.invoke("scenario:too_long"),
    "broken": broken,
    "limited": lambda: model.invoke("scenario:limited"),
    "leave": leave,
}
