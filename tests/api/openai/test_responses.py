"""Responses, OpenAI's newer protocol: what reaches a provider, what comes back."""

from __future__ import annotations

import json

from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import Ending, says, streams
from tests.support.upstream import latest_row, serving

OPENAI = OpenAIDialect()
ANTHROPIC = AnthropicDialect()
RESPONSES = "/u/5/v1/responses"


def asked(model=OPENAI.model, **others):
    return {"model": model, "input": "Say hello.", **others}


async def test_an_answer_has_what_clients_expect(users, orm, settings):
    async with serving(settings, OPENAI) as (client, _provider):
        answer = await client.post(
            RESPONSES, json=asked(store=False, instructions="Be brief.", metadata={"a": "b"})
        )
        row = await latest_row()
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["id"], body["object"]) == (f"resp_{row.id.hex}", "response")
    assert (body["status"], body["store"], body["error"]) == ("completed", False, None)
    (message,) = body["output"]
    assert body["metadata"] == {"a": "b"}
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert message["content"][0]["text"] == "Hello."
    assert (body["usage"]["input_tokens"], body["usage"]["total_tokens"]) == (10, 30)
    assert (row.status, row.body.system, row.total_tokens) == ("succeeded", "Be brief.", 30)


async def test_a_provider_gets_the_items_as_a_conversation(users, orm, settings):
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    items = [
        {"role": "developer", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "https://example.org/i.png"},
            ],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "Look."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
    ]
    given = asked(
        input=items,
        tools=[{"type": "function", "name": "f", "parameters": schema, "strict": True}],
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
        max_output_tokens=40,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
    )
    async with serving(settings, OPENAI) as (client, provider):
        answer = await client.post(RESPONSES, json=given)
    assert answer.status_code == 200, answer.text
    sent = provider.requests[0].json
    function = {"name": "f", "arguments": '{"a":1}'}
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "https://example.org/i.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Look.",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
    ]
    assert sent["tools"][0]["function"]["strict"] is True
    assert sent["response_format"]["json_schema"] == {"name": "n", "schema": schema, "strict": True}
    assert (sent["reasoning_effort"], sent["max_tokens"]) == ("low", 40)
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("required", False)


REFUSED = {
    "store": asked(store=True),
    "previous_response_id": asked(previous_response_id="resp_1"),
    "input": asked(input=[]),
    "input.0.role": asked(input=[{"content": "x"}]),
    "input.0.reasoning": asked(input=[{"type": "reasoning"}, {"role": "user", "content": "x"}]),
    "tools.0.web_search": asked(tools=[{"type": "web_search"}]),
    "text.verbosity": asked(text={"verbosity": "low"}),
    "brand_new": asked(brand_new=1),
    "include.message.output_text.logprobs": asked(include=["message.output_text.logprobs"]),
    "reasoning.context": asked(reasoning={"context": "auto"}),
    "input.0.brand_new": asked(input=[{"role": "user", "content": "x", "brand_new": 1}]),
    "tools.0.defer_loading": asked(
        tools=[{"type": "function", "name": "f", "defer_loading": True}]
    ),
}


async def test_what_has_no_place_is_refused_by_name_before_it_costs(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        for name, body in REFUSED.items():
            answer = await client.post(RESPONSES, json=body)
            assert answer.status_code == 400, name
            assert name in answer.json()["error"]["message"]
        assert provider.calls == 0


def read(body: bytes):
    """Asserts the form of a stream; returns its events."""
    events = []
    for number, block in enumerate(body.removesuffix(b"\n\n").split(b"\n\n")):
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name.removeprefix(b"event: ").decode() == event["type"]
        assert event["sequence_number"] == number
        events.append(event)
    return events


async def test_a_stream_has_the_events_that_clients_wait_for(users, orm, settings):
    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    pieces = OPENAI.stream("Hel", "lo.", stop="tool_calls")
    pieces.insert(-3, OPENAI.chunk({"tool_calls": [call]}))
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(*pieces)
        answer = await client.post(RESPONSES, json=asked(stream=True))
    events = read(answer.content)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    response = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert response["output"] == done
    assert [item["type"] for item in done] == ["message", "function_call"]
    assert done[0]["content"][0]["text"] == "Hello."
    assert (done[1]["call_id"], done[1]["name"], done[1]["arguments"]) == ("c1", "f", "{}")
    assert response["usage"]["output_tokens"] == 20


async def test_a_stream_that_breaks_off_fails_and_one_that_is_cut_short_is_incomplete(
    users, orm, settings
):
    async with serving(settings, ANTHROPIC) as (client, provider):
        provider.behave = streams(*ANTHROPIC.stream("Hel", "lo.")[:4], Ending.TORN)
        broken = await client.post(RESPONSES, json=asked(ANTHROPIC.model, stream=True))
        provider.behave = says(200, ANTHROPIC.cut_off("Hel"))
        cut = await client.post(RESPONSES, json=asked(ANTHROPIC.model, stream=True))
    failed, incomplete = read(broken.content)[-1], read(cut.content)[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "stream-broken"
    assert incomplete["type"] == "response.incomplete"
    assert incomplete["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
