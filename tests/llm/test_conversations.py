"""A conversation in each dialect. What a provider has no place for is refused, and not dropped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from generation import errors
from generation.conf import parse
from generation.conversation import (
    Image,
    Message,
    Options,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from generation.llm.client import LLMClient
from generation.llm.providers.registry import PROVIDERS
from generation.pipeline.relay import Relay
from tests.support.dialects import PROMPT, AnthropicDialect, OpenAIDialect
from tests.support.provider import says, streams

ANTHROPIC, OPENAI = AnthropicDialect(), OpenAIDialect()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TALK = (
    Message(
        "user",
        (Text("What is this?"), Image(url="https://x/y.png"), Image("", "QUJD", "image/png")),
    ),
    Message("assistant", (Text("Let me look."), ToolUse("t1", "look", '{"city": "Bonn"}'))),
    Message("user", (ToolResult("t1", (Text("not found"),), is_error=True), Text("And now?"))),
)
PROMPT_OF_TALK = replace(
    PROMPT,
    text="And now?",
    system="Be brief.",
    messages=TALK,
    tools=(Tool("look", "Looks.", SCHEMA),),
    options=Options(
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        reasoning_effort="low",
        tool_choice="required",
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    ),
)


def encode(dialect, prompt, url="http://127.0.0.1:9", **how):
    provider: Any = PROVIDERS[dialect.name](
        parse(dialect.settings(url)), httpx.AsyncBaseTransport()
    )
    return provider.encode(prompt, "m", **how)


def test_anthropic_gets_a_conversation_as_blocks():
    assert encode(ANTHROPIC, PROMPT_OF_TALK, is_streamed=True) == {
        "model": "m",
        "max_tokens": 100,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"city": "Bonn"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "not found"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": SCHEMA},
        },
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
    }


def test_openai_gets_a_conversation_as_messages():
    assert encode(OPENAI, PROMPT_OF_TALK, is_streamed=True) == {
        "model": "m",
        "max_tokens": 100,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {
                        "id": "t1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"city": "Bonn"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "Error: not found"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": PROMPT_OF_TALK.options.response_format,
        "stop": ["END"],
        "reasoning_effort": "low",
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("choice", "anthropic", "openai"),
    [
        ("auto", {"type": "auto"}, "auto"),
        ("none", {"type": "none"}, "none"),
        (
            "look",
            {"type": "tool", "name": "look"},
            {"type": "function", "function": {"name": "look"}},
        ),
    ],
)
def test_the_choice_of_a_tool_is_said_in_each_dialects_words(choice, anthropic, openai):
    prompt = replace(PROMPT_OF_TALK, options=Options(tool_choice=choice))
    assert encode(ANTHROPIC, prompt)["tool_choice"] == anthropic
    assert encode(OPENAI, prompt)["tool_choice"] == openai


def test_thinking_goes_back_to_where_it_came_from():
    signed = (Thinking("hm", "sig"), Thinking("", "secret", is_redacted=True))
    talk = (Message("user", (Text("a"),)), Message("assistant", (*signed, Text("b"))))
    [_, answer] = encode(ANTHROPIC, replace(PROMPT, messages=talk))["messages"]
    assert answer["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "b"},
    ]
    talk = (Message("user", (Text("a"),)), Message("assistant", (Thinking("hm"), Text("b"))))
    [_, answer] = encode(OPENAI, replace(PROMPT, messages=talk))["messages"]
    assert answer == {"role": "assistant", "content": "b", "reasoning_content": "hm"}


def talking(*parts, role="assistant"):
    return {"messages": (Message(role, parts),)}


REFUSED = [
    (ANTHROPIC, {"options": Options(response_format={"type": "json_object"})}, "response_format"),
    (ANTHROPIC, {"options": Options(response_format={"type": "json_schema"})}, "schema"),
    (ANTHROPIC, {"options": Options(temperature=1.5)}, "temperature"),
    (ANTHROPIC, talking(Thinking("hm")), "thinking"),
    (ANTHROPIC, talking(ToolUse("1", "f", '{"a')), "arguments"),
    (OPENAI, talking(Thinking("hm", "sig")), "thinking"),
    (OPENAI, talking(ToolResult("1", (Image("u"),)), role="user"), "image"),
    (OPENAI, talking(Image("u")), "image"),
]


@pytest.mark.parametrize(("dialect", "fields", "named"), REFUSED)
async def test_what_a_provider_has_no_place_for_is_refused_by_name(dialect, fields, named):
    settings = dialect.settings("http://127.0.0.1:9")
    async with LLMClient.open(parse(settings)) as llm:
        with pytest.raises(errors.ParameterNotSupported) as caught:
            llm.check(replace(PROMPT, provider=dialect.name, **fields))
        llm.check(replace(PROMPT, provider=dialect.name))
    assert named in caught.value.detail
    assert caught.value.status == 422


@pytest.mark.parametrize("dialect", [OPENAI], ids=["openai"])
async def test_a_fallback_that_has_no_place_for_it_is_passed_over(client, server, dialect):
    server.behave = says(503, dialect.error("overloaded"))
    fallbacks = {
        "LLM_FALLBACKS": "anthropic:claude-sonnet-5-5,openai:other",
        "LLM_MAX_ATTEMPTS": "1",
        "ANTHROPIC_API_KEY": "k" * 20,
        "ANTHROPIC_BASE_URL": server.url,
    }
    prompt = replace(PROMPT, options=Options(response_format={"type": "json_object"}))
    async with client(**fallbacks) as llm:
        outcome = await llm.complete(prompt)
        assert [a.model for a in outcome.attempts] == ["some-model", "other"]
        outcome = await llm.complete(PROMPT)
    assert [a.provider for a in outcome.attempts] == ["openai", "anthropic", "openai"]


@pytest.mark.parametrize("dialect", [OPENAI], ids=["openai"])
async def test_a_server_that_refuses_to_be_asked_for_usage_is_asked_without(
    client, server, dialect
):
    refusal = {"error": {"message": "Extra inputs are not permitted: stream_options"}}

    async def behave(exchange):
        refuses = "stream_options" in exchange.json
        answer = says(400, refusal) if refuses else streams(*dialect.stream("Hello."))
        await answer(exchange)

    server.behave = behave
    async with client() as llm:
        for _ in range(2):
            outcome = await llm.run(llm.begin(PROMPT, Relay()))
            assert outcome.require_reply().text == "Hello."
    assert server.calls == 3, "it was asked again and again"
