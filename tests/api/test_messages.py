"""A conversation in a request: what it becomes, and what is said about each fault."""

from __future__ import annotations

import functools
from typing import Any

from generation.api.native.messages import MAX_MESSAGES, MAX_PARTS, MAX_TOOLS
from generation.api.native.schemas import GenerateIn
from generation.conversation import (
    NO_OPTIONS,
    Image,
    Message,
    Options,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from generation.models import GenerationLog
from tests.support import cpu
from tests.support.problems import problem

GENERATE = "/api/v1/generate/1"
HELLO = {"role": "user", "content": "Hello."}
ASKED = {"type": "tool_use", "id": "c1", "name": "clock", "arguments": "{}"}
CLOCK = {"name": "clock", "description": "Tells the time.", "parameters": {"type": "object"}}


def nested(depth: int) -> dict:
    document: dict = {}
    for _ in range(depth - 1):
        document = {"a": document}
    return document


def part(**members) -> list[dict]:
    return [{"role": "user", "content": [members]}]


def test_a_conversation_is_taken_whole():
    body = GenerateIn.model_validate(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image", "url": "https://example.org/a.png"},
                        {"type": "image", "data": "aGk=", "media_type": "image/png"},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "text": "Hm", "signature": "s"}, ASKED],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "c1", "content": "12:00"},
                        {"type": "tool_result", "tool_use_id": "c1", "is_error": True},
                    ],
                },
            ],
            "tools": [CLOCK],
            "tool_choice": "clock",
            "parallel_tool_calls": False,
            "response_format": {"type": "json_object"},
            "temperature": 0,
            "top_p": 0.5,
            "stop": "END",
            "reasoning_effort": "low",
        }
    )
    assert body.conversation() == {
        "messages": (
            Message(
                "user",
                (
                    Text("What is this?"),
                    Image("https://example.org/a.png"),
                    Image("", "aGk=", "image/png"),
                ),
            ),
            Message("assistant", (Thinking("Hm", "s"), ToolUse("c1", "clock", "{}"))),
            Message("user", (ToolResult("c1", (Text("12:00"),)), ToolResult("c1", (), True))),
        ),
        "system": "Be brief.",
        "tools": (Tool("clock", "Tells the time.", {"type": "object"}),),
        "options": Options(
            temperature=0.0,
            top_p=0.5,
            stop=("END",),
            reasoning_effort="low",
            tool_choice="clock",
            parallel_tool_calls=False,
            response_format={"type": "json_object"},
        ),
    }


def test_what_is_not_said_is_left_to_the_profile_and_the_provider():
    taken = GenerateIn.model_validate({"messages": [HELLO]}).conversation()
    assert taken["system"] is None, "the profile's"
    assert taken["options"] is NO_OPTIONS
    assert GenerateIn.model_validate({"input": "hi"}).conversation() == {}


async def test_a_conversation_is_answered_and_the_template_is_not_used(client):
    answer = await client.post(GENERATE, json={"messages": [HELLO]})
    assert answer.status_code == 200, answer.text
    row = await GenerationLog.objects.select_related("body").aget(id=answer.json()["id"])
    assert row.body.prompt == "Hello."
    assert answer.json()["stop_reason"] == row.stop_reason == "end_turn"


# What is sent, and what the answer says.
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"messages": [HELLO], "input": "hi"}, "in place of `input` and `variables`"),
    ({"messages": [HELLO], "variables": {"a": "b"}}, "in place of `input` and `variables`"),
    ({"input": "hi", "tools": [CLOCK]}, "`tools` goes with `messages` only"),
    ({"temperature": 1}, "`temperature` goes with `messages` only"),
    ({"messages": []}, "must be the user's"),
    ({"messages": [HELLO, {"role": "assistant", "content": "Hi."}]}, "must be the user's"),
    ({"messages": [HELLO, {"role": "system", "content": "x"}, HELLO]}, "must come first"),
    ({"messages": [{"role": "system", "content": "x"}, HELLO], "system": "y"}, "send one"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "'system', 'user' or 'assistant'"),
    ({"messages": [{"role": "user"}]}, "Field required"),
    ({"messages": [{"role": "user", "content": []}]}, "at least 1 item"),
    ({"messages": [{**HELLO, "name": "x"}]}, "Extra inputs are not permitted"),
    ({"messages": ["hi"]}, "must be a JSON object"),
    ({"messages": part(type="video")}, "'text', 'thinking', 'image', 'tool_use'"),
    ({"messages": part(text="no type")}, "Unable to extract tag"),
    ({"messages": part(type="text", text="a\0b")}, "holds a NUL character"),
    ({"messages": part(**ASKED)}, "the role user has no tool_use part"),
    ({"messages": part(type="image")}, "either a `url`, or `data` and its `media_type`"),
    ({"messages": part(type="image", data="aGk=")}, "either a `url`, or `data`"),
    ({"messages": part(type="image", url="file:///etc/passwd")}, "begins with https://"),
    ({"messages": part(type="image", data="?", media_type="image/png")}, "is not base64"),
    ({"messages": part(type="image", data="aGk=", media_type="text/html")}, "'image/png'"),
    ({"messages": part(type="tool_result", tool_use_id="c9")}, "answers no tool_use"),
    ({"messages": [HELLO], "tools": [CLOCK, CLOCK]}, "have the same name"),
    ({"messages": [HELLO], "tools": [{"name": "a b"}]}, "should match pattern"),
    ({"messages": [HELLO], "tools": [{**CLOCK, "parameters": {"\0": 1}}]}, "NUL character"),
    ({"messages": [HELLO], "tools": [{**CLOCK, "parameters": nested(101)}]}, "100 levels deep"),
    ({"messages": [HELLO], "tools": [{**CLOCK, "parameters": nested(300)}]}, "100 levels deep"),
    ({"messages": [HELLO], "tool_choice": "auto"}, "goes with `tools` only"),
    ({"messages": [HELLO], "tools": [CLOCK], "tool_choice": "x"}, "the name of one of `tools`"),
    ({"messages": [HELLO], "response_format": {"type": "json_schema"}}, "goes with the type"),
    ({"messages": [HELLO], "temperature": 3}, "less than or equal to 2"),
    ({"messages": [HELLO], "temperature": "1"}, "valid number"),
    ({"messages": [HELLO], "stop": ["x"] * 17}, "more than 16 stop sequences"),
    ({"messages": [HELLO] * (MAX_MESSAGES + 1)}, "more than 1000 messages"),
    ({"messages": [{**HELLO, "content": [{}] * (MAX_PARTS + 1)}]}, "more than 100 parts"),
    ({"messages": [HELLO], "tools": [CLOCK] * (MAX_TOOLS + 1)}, "more than 128 tools"),
    ({"stream": "yes"}, "valid boolean"),
    ({"stream": 1}, "valid boolean"),
]  # fmt: skip


async def test_each_fault_is_said_in_plain_words(client, subtests):
    for body, why in FAULTS:
        with subtests.test(why, body=str(body)[:200]):
            answer = await client.post(GENERATE, json=body)
            assert problem(answer) == (422, "invalid-request")
            assert why in answer.json()["detail"]
            assert len(answer.content) < 2_000


async def test_a_fault_says_where_it_is(client):
    messages = [HELLO, {"role": "assistant", "content": "Hi."}, *part(type="text", text=7)]
    answer = await client.post(GENERATE, json={"messages": messages})
    assert answer.json()["errors"][0]["where"] == "body.messages.2.content.0.text.text"


async def test_many_faults_cost_no_more_than_a_few(client):
    await client.post(GENERATE, json={})
    for body in (
        {"messages": [dict.fromkeys(map(str, range(60_000)), 1)]},
        {"messages": [{"role": "user", "content": [{}] * 100}] * 1000},
        {"messages": [HELLO] * 999, "tools": [{"name": "?"}] * 128},
    ):
        posted = functools.partial(client.post, GENERATE, json=body)
        answer = await cpu.within(0.5, posted, str(body)[:100])
        assert answer.status_code == 422
        assert len(answer.content) < 4_000
