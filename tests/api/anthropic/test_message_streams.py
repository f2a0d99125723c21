"""Whatever form a provider's stream has, a client of messages gets the one that all accept."""

from __future__ import annotations

import json
from itertools import pairwise

from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import Ending, streams
from tests.support.upstream import latest_row, serving

ANTHROPIC = AnthropicDialect()
OPENAI = OpenAIDialect()
MESSAGES = "/u/5/v1/messages"  # the user 5 has no profile
VERSION = {"anthropic-version": "2023-06-01"}
HELLO = [{"role": "user", "content": "Say hello."}]


def asked(model=ANTHROPIC.model, **others):
    return {"model": model, "max_tokens": 50, "messages": HELLO, **others}


def read(body: bytes):
    """Asserts the form of a stream; returns its message as a client puts it together."""
    assert body.endswith(b"\n\n"), "the stream ends in the middle of an event"
    events = []
    for block in body.removesuffix(b"\n\n").split(b"\n\n"):
        name, data = block.split(b"\n")
        document = json.loads(data.removeprefix(b"data: "))
        assert name.removeprefix(b"event: ").decode() == document["type"]
        events.append(document)
    start, *others, delta, stop = events
    message = start["message"]
    assert start["type"] == "message_start"
    assert stop == {"type": "message_stop"}
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert {"input_tokens", "output_tokens"} <= set(message["usage"])
    blocks = []
    for event in others:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
            if "input" in blocks[-1]:
                blocks[-1]["input"] = ""
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            kind, value = (event["delta"][key] for key in event["delta"])
            member = {
                "text_delta": "text",
                "thinking_delta": "thinking",
                "signature_delta": "signature",
                "input_json_delta": "input",
            }[kind]
            blocks[-1][member] += value
        else:
            assert event == {"type": "content_block_stop", "index": len(blocks) - 1}
    stops = [event["type"] for event in others if event["type"] != "content_block_delta"]
    assert all(first != second for first, second in pairwise(stops)), "blocks follow each other"
    assert delta["type"] == "message_delta"
    return {**message, **delta["delta"], "content": blocks, "usage": delta["usage"]}


def stream_of(*blocks, stop="end_turn"):
    """Anthropic's stream of blocks, each given as its start and its deltas."""
    opening, _start, *_deltas, _stop, delta, end = ANTHROPIC.stream("x", stop=stop)
    pieces = [opening]
    for index, (block, *deltas) in enumerate(blocks):
        pieces.append(ANTHROPIC.event("content_block_start", index=index, content_block=block))
        pieces += [
            ANTHROPIC.event("content_block_delta", index=index, delta=each) for each in deltas
        ]
        pieces.append(ANTHROPIC.event("content_block_stop", index=index))
    return [*pieces, delta, end]


TEXT = (
    {"type": "text", "text": ""},
    {"type": "text_delta", "text": "Hel"},
    {"type": "text_delta", "text": "lo."},
)
THOUGHT = (
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Hm."},
    {"type": "signature_delta", "signature": "sig"},
)
OMITTED = (
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "signature_delta", "signature": "sig"},
)
HIDDEN = ({"type": "redacted_thinking", "data": "secret"},)
CALL = (
    {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    {"type": "input_json_delta", "partial_json": '{"a":'},
    {"type": "input_json_delta", "partial_json": "1}"},
)
OTHER = ({"type": "tool_use", "id": "t2", "name": "g", "input": {}},)


async def test_a_stream_comes_in_the_form_that_all_clients_accept(users, orm, settings):
    text = {"type": "text", "text": "Hello."}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
    hidden = {"type": "redacted_thinking", "data": "secret"}
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": '{"a":1}'}
    other = {"type": "tool_use", "id": "t2", "name": "g", "input": "{}"}
    forms = [
        (stream_of(TEXT), [text]),
        ([b'event: ping\ndata: {"type": "ping"}\n\n', *stream_of(TEXT)], [text]),
        (stream_of(TEXT)[:-1], [text]),
        ([*stream_of(TEXT), Ending.SILENCE], [text]),
        ([ANTHROPIC.event("brand_new", index=0), *stream_of(TEXT)], [text]),
        ([b"id: 1\nretry: 5\n" + each for each in stream_of(TEXT)], [text]),
        ([each.split(b"\n", 1)[1] for each in stream_of(TEXT)], [text]),
        ([each.replace(b"\n", b"\r\n") for each in stream_of(TEXT)], [text]),
        ([b"".join(stream_of(TEXT))], [text]),
        (stream_of(THOUGHT, HIDDEN, TEXT), [thought, hidden, text]),
        (stream_of(OMITTED, TEXT), [{**thought, "thinking": ""}, text]),
        (stream_of(TEXT, CALL, OTHER, stop="tool_use"), [text, call, other]),
    ]  # fmt: skip
    async with serving(settings, ANTHROPIC) as (client, provider):
        for pieces, content in forms:
            provider.behave = streams(*pieces)
            answer = await client.post(MESSAGES, json=asked(stream=True), headers=VERSION)
            assert answer.status_code == 200, answer.text
            message = read(answer.content)
            row = await latest_row()
            assert message["content"] == content
            assert message["id"] == f"msg_{row.id.hex}"
            assert b'"message_start","message":{' in answer.content
            assert answer.content.index(b'"input_tokens":10') < answer.content.index(b"delta")
            assert message["stop_reason"] == row.stop_reason
            assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (10, 20)
            assert (row.status, row.input_tokens, row.output_tokens) == ("succeeded", 10, 20)
            assert row.cost_usd > 0
            assert answer.headers["request-id"] == row.request_id


CITATION = {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "x"}}
CITED = ({"type": "text", "text": "", "citations": []}, *TEXT[1:], CITATION)
SEARCH = (
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
    {"type": "input_json_delta", "partial_json": '{"query":"x"}'},
)
FOUND = ({"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},)
ENDING = {
    "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c"}},
    "usage": {"output_tokens": 20, "server_tool_use": {"web_search_requests": 1}},
    "context_management": {"applied_edits": []},
}


async def test_what_we_do_not_know_of_a_stream_reaches_a_client_of_the_same_protocol(
    users, orm, settings
):
    opening, *sent, _delta, end = stream_of(SEARCH, FOUND, CITED, TEXT)
    start = json.loads(opening.split(b"data: ")[1])
    start["message"]["usage"]["service_tier"] = "standard"
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    async with serving(settings, ANTHROPIC) as (client, provider):
        provider.behave = streams(
            ANTHROPIC.event("message_start", message={**start["message"], "container": None}),
            *sent,
            ANTHROPIC.event("message_delta", **ENDING),
            end,
        )
        answer = await client.post(MESSAGES, json=asked(stream=True, tools=tools), headers=VERSION)
        row = await latest_row()
    documents = [
        json.loads(each.split(b"data: ")[1]) for each in answer.content.split(b"\n\n")[:-1]
    ]
    begun, *content, ended, _stop = documents
    assert content == [json.loads(each.split(b"data: ")[1]) for each in sent]
    assert begun["message"]["usage"]["service_tier"] == "standard"
    assert (ended["delta"], ended["context_management"]) == (
        ENDING["delta"],
        ENDING["context_management"],
    )
    assert ended["usage"]["server_tool_use"] == {"web_search_requests": 1}
    assert (ended["usage"]["input_tokens"], ended["usage"]["output_tokens"]) == (10, 20)
    assert row.body.result == "Hello.Hello."


async def test_a_stream_of_openai_comes_in_the_same_form(users, orm, settings):
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
        answer = await client.post(MESSAGES, json=asked(OPENAI.model, stream=True))
    message = read(answer.content)
    assert message["content"] == [
        {"type": "text", "text": "Hello."},
        {"type": "tool_use", "id": "c1", "name": "f", "input": "{}"},
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens"] == 20


async def test_an_answer_that_breaks_off_ends_with_an_error_and_never_as_if_it_were_whole(
    users, orm, settings
):
    begun = stream_of(TEXT)[:4]
    broken = {
        "torn": [*begun, Ending.TORN],
        "no stop": begun,
        "an error": [*begun, ANTHROPIC.error_event("overloaded")],
    }
    async with serving(settings, ANTHROPIC) as (client, provider):
        for form, pieces in broken.items():
            provider.behave = streams(*pieces)
            answer = await client.post(MESSAGES, json=asked(stream=True), headers=VERSION)
            assert answer.status_code == 200, form
            name, data = answer.content.removesuffix(b"\n\n").split(b"\n\n")[-1].split(b"\n")
            assert name == b"event: error", form
            error = json.loads(data.removeprefix(b"data: "))
            assert error["type"] == "error"
            assert set(error["error"]) == {"type", "message"}
            assert error["request_id"] == answer.headers["request-id"]
            assert b"message_stop" not in answer.content
            assert (await latest_row()).body.result == "Hello."
