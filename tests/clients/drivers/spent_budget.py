"""openai-python and anthropic-sdk-python as they come, which repeat what may be repeated."""

from __future__ import annotations

from anthropic import Anthropic
from openai import OpenAI
from target import KEY, MODEL, URL

HELLO = [{"role": "user", "content": "scenario:whole"}]


def openai():
    OpenAI(base_url=f"{URL}/v1", api_key=KEY).chat.completions.create(model=MODEL, messages=HELLO)


def anthropic():
    Anthropic(base_url=URL, api_key=KEY).messages.create(
        model=MODEL, max_tokens=100, messages=HELLO
    )


SCENARIOS = {"openai": openai, "anthropic": anthropic}
