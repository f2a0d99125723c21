"""An LLM of this project's own, which needs no key: it says what it heard."""

import asyncio
import re
from collections.abc import AsyncIterator

from django.conf import settings

from generation import Answer, Prompt, Provider, Usage


class Parrot(Provider):
    default_model = "parrot-1"

    async def ask(self, prompt: Prompt, model: str) -> Answer:
        text = _reply(prompt)
        return Answer(text, usage=_usage(prompt, text), model=model)

    async def stream(self, prompt: Prompt, model: str) -> AsyncIterator[str | Answer]:
        text = _reply(prompt)
        for word in re.findall(r"\S+\s*", text):
            await asyncio.sleep(settings.PARROT_PAUSE_S)
            yield word
        yield Answer(usage=_usage(prompt, text), model=model)

    def unsupported(self, prompt: Prompt) -> str:
        return "tools" if prompt.tools else ""


def _reply(prompt: Prompt) -> str:
    count = sum(message.role == "user" for message in prompt.messages) or 1
    ordinal = {1: "first", 2: "second", 3: "third"}.get(count, "next")
    return (
        f"You said: “{prompt.text}” That was your {ordinal} question. I am a parrot, so I can"
        " only say it back, one word at a time. For answers with some thought in them, set"
        " LLM_PROVIDER=anthropic and ANTHROPIC_API_KEY, and restart."
    )


def _usage(prompt: Prompt, text: str) -> Usage:
    return Usage(input_tokens=len(prompt.text.split()), output_tokens=len(text.split()))
