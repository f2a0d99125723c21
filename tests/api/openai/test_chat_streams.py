"""Whatever form a provider's stream has, a client gets the one that all clients accept."""

from __future__ import annotations

import json

from tests.api.openai.chunks import read
from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import Ending, says, streams
from tests.support.upstream import latest_row, serving

OPENAI = OpenAIDialect()
ANTHROPIC = AnthropicDialect()
CHAT = "/u/5/v1/chat/completions"  # the user 5 has no profile
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def asked(model="some-model", **others):
    message = {"role": "user", "content": "Say hello."}
    return {"model": model, "messages": [message], "stream": True, **others}


WITH_USAGE = {"stream_options": {"include_usage": True}}


def chunk(delta, **choice):
    return OPENAI.chunk(delta, **choice)


def usage(**others):
    return OPENAI.event(usage=USAGE, **others)


HELLO = [OPENAI.delta("Hel"), OPENAI.delta("lo.")]
ROLE = chunk({"role": "assistant", "content": ""})
FINISH = chunk({}, finish_reason="stop")
LAST = usage(choices=[])
WHOLE = b"".join([ROLE, *HELLO, FINISH, LAST, DONE])

TEXTS = {
    "as documented": [ROLE, *HELLO, FINISH, LAST, DONE],
    "no role": [*HELLO, FINISH, LAST, DONE],
    "role on each": [
        chunk({"role": "assistant", "content": text}) for text in ("Hel", "lo.")
    ]
    + [FINISH, LAST, DONE],
    "no end": [ROLE, *HELLO, FINISH, LAST],
    "comments": [b": ping\n\n", ROLE, *HELLO, b": x\n", FINISH, LAST, DONE],
    "ids and retry": [b"id: 1\nretry: 5\n", ROLE, b"id: 2\n", *HELLO, FINISH, LAST, DONE],
    "a foreign event": [b"event: ping\ndata: {}\n\n", ROLE, *HELLO, FINISH, LAST, DONE],
    "a foreign event without data": [b"event: ping\n\n", ROLE, *HELLO, FINISH, LAST, DONE],
    "usage in the finish": [ROLE, *HELLO, chunk({}, finish_reason="stop")[:-3] + b', "usage": '
        + json.dumps(USAGE).encode() + b"}\n\n", DONE],
    "usage on each": [
        ROLE,
        *(OPENAI.event(choices=[{"index": 0, "delta": {"content": text}}], usage=USAGE)
          for text in ("Hel", "lo.")),
        FINISH, LAST, DONE,
    ],
    "usage twice": [ROLE, *HELLO, FINISH, LAST, LAST, DONE],
    "usage with null choices": [ROLE, *HELLO, FINISH, usage(choices=None), DONE],
    "usage without choices": [ROLE, *HELLO, FINISH, usage(), DONE],
    "usage before the finish": [ROLE, *HELLO, LAST, FINISH, DONE],
    "empty finish on each": [
        *(chunk({"content": text}, finish_reason="") for text in ("Hel", "lo.")),
        FINISH, LAST, DONE,
    ],
    "finish twice": [ROLE, *HELLO, FINISH, FINISH, LAST, DONE],
    "a finish that nobody knows": [ROLE, *HELLO, chunk({}, finish_reason="ok"), LAST, DONE],
    "empty choices first": [OPENAI.event(choices=[]), ROLE, *HELLO, FINISH, LAST, DONE],
    "delta null": [ROLE, *HELLO, chunk(None, finish_reason="stop"), LAST, DONE],
    "delta absent": [
        ROLE, *HELLO, OPENAI.event(choices=[{"index": 0, "finish_reason": "stop"}]), LAST, DONE,
    ],
    "no index": [
        *(OPENAI.event(choices=[{"delta": {"content": text}}]) for text in ("Hel", "lo.")),
        FINISH, LAST, DONE,
    ],
    "CRLF": [WHOLE.replace(b"\n", b"\r\n")],
    "CR": [WHOLE.replace(b"\n", b"\r")],
    "no space": [WHOLE.replace(b"data: ", b"data:")],
    "byte order mark": [b"\xef\xbb\xbf" + WHOLE],
    "all in one piece": [WHOLE],
    "byte by byte": [WHOLE[at : at + 1] for at in range(len(WHOLE))],
    "a receipt at the end": [ROLE, *HELLO, FINISH, LAST, OPENAI.event(receipt=1), DONE],
    "named events": [b"event: message\n" + each for each in (ROLE, *HELLO, FINISH, LAST, DONE)],
    "keep-alive chunks": [ROLE, chunk({}), HELLO[0], OPENAI.event(choices=[]), HELLO[1], FINISH,
        LAST, DONE],
    "data over two lines": [WHOLE.replace(b', "choices"', b',\ndata: "choices"')],
    "usage null on each": [
        ROLE,
        *(OPENAI.event(choices=[{"index": 0, "delta": {"content": text}}], usage=None)
          for text in ("Hel", "lo.")),
        FINISH, LAST, DONE,
    ],
    "usage, then none": [ROLE, *HELLO, FINISH, LAST, OPENAI.event(choices=[]), DONE],
    "usage, then null": [ROLE, *HELLO, FINISH, LAST, OPENAI.event(choices=[], usage=None), DONE],
    "CRLF cut in two": [
        piece for line in WHOLE.split(b"\n") for piece in (line + b"\r", b"\n")
    ],
    "no finish on the deltas": [
        ROLE,
        *(OPENAI.event(choices=[{"index": 0, "delta": {"content": text}}])
          for text in ("Hel", "lo.")),
        FINISH, LAST, DONE,
    ],
    "the least there can be": [
        *(OPENAI.event(choices=[{"delta": {"content": text}}]) for text in ("Hel", "lo.")),
        OPENAI.event(choices=[{"delta": {}, "finish_reason": "stop"}], usage=USAGE),
    ],
    "no blank line after the end": [WHOLE[:-1]],
    "no newline after the end": [WHOLE[:-2]],
    "torn after the end": [WHOLE, Ending.TORN],
    "silent after the end": [WHOLE, Ending.SILENCE],
    "more after the end": [ROLE, *HELLO, FINISH, LAST, DONE, OPENAI.event(receipt=1)],
}  # fmt: skip


async def test_a_text_comes_in_the_form_that_all_clients_accept(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        for form, pieces in TEXTS.items():
            provider.behave = streams(*pieces)
            answer = await client.post(CHAT, json=asked(**WITH_USAGE))
            assert answer.status_code == 200, (form, answer.text)
            assert answer.headers["content-type"].startswith("text/event-stream"), form
            found = read(answer.content, wants_usage=True)
            row = await latest_row()
            assert (found.text, found.finish_reason, found.usage) == ("Hello.", "stop", USAGE), form
            assert (row.status, row.body.result, row.is_streamed) == ("succeeded", "Hello.", True)
            assert (row.input_tokens, row.output_tokens) == (10, 20), form
            assert found.id == f"chatcmpl-{row.id}"


async def test_a_piece_may_be_large_and_a_choice_that_nobody_asked_for_is_left_out(
    users, orm, settings
):
    large = "x" * 300_000
    other = OPENAI.event(choices=[{"index": 1, "delta": {"content": "Another."}}])
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(OPENAI.delta(large), other, FINISH, LAST, DONE)
        answer = await client.post(CHAT, json=asked(**WITH_USAGE))
        found = read(answer.content, wants_usage=True)
        assert (found.text == large, found.finish_reason, found.usage) == (True, "stop", USAGE)
        assert (await latest_row()).body.result == large


async def test_usage_is_sent_only_if_it_is_asked_for_and_recorded_in_any_case(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(WHOLE)
        answer = await client.post(CHAT, json=asked())
        assert read(answer.content, wants_usage=False).text == "Hello."
        assert (await latest_row()).total_tokens == 30
        assert provider.requests[0].json["stream_options"] == {"include_usage": True}


def call(index, call_id, name, arguments, **others):
    piece = {"index": index, "id": call_id, "type": "function", **others}
    return piece | {"function": {"name": name, "arguments": arguments}}


def tools(*calls):
    return chunk({"tool_calls": list(calls)})


def more(index, arguments, **others):
    return {"index": index, "function": {"arguments": arguments}, **others}


def without(piece, *names):
    return {name: value for name, value in piece.items() if name not in names}


TOOL_FINISH = chunk({}, finish_reason="tool_calls")
TAIL = [TOOL_FINISH, LAST, DONE]
FIRST, SECOND = call(0, "call_1", "f", '{"a":1}'), call(1, "call_2", "g", '{"b":2}')
TOOLS = {
    "as documented": [
        tools(call(0, "call_1", "f", "")), tools(more(0, '{"a":')), tools(more(0, "1}")),
        tools(call(1, "call_2", "g", "")), tools(more(1, '{"b":2}')), *TAIL,
    ],
    "two in one chunk": [tools(FIRST, SECOND), *TAIL],
    "id repeated": [
        tools(call(0, "call_1", "f", "")), tools(more(0, '{"a":1}', id="call_1")),
        tools(SECOND), *TAIL,
    ],
    "name repeated": [
        tools(call(0, "call_1", "f", "")), tools(call(0, "call_1", "f", '{"a":1}')),
        tools(SECOND), *TAIL,
    ],
    "null where nothing is new": [
        tools(call(0, "call_1", "f", "")), tools(call(0, None, None, '{"a":1}')),
        tools(SECOND), *TAIL,
    ],
    "no index": [tools(without(FIRST, "index")), tools(without(SECOND, "index")), *TAIL],
    "index from 1": [tools(FIRST | {"index": 1}), tools(SECOND | {"index": 2}), *TAIL],
    "no type": [tools(without(FIRST, "type")), tools(without(SECOND, "type")), *TAIL],
    "stopped as if it were text": [tools(FIRST), tools(SECOND), FINISH, LAST, DONE],
    "by turns": [
        tools(call(0, "call_1", "f", '{"a"'), call(1, "call_2", "g", '{"b"')),
        tools(more(0, ":1}"), more(1, ":2}")), *TAIL,
    ],
}  # fmt: skip


async def test_tool_calls_come_one_a_chunk_and_numbered_from_0(users, orm, settings):
    both = [("call_1", "f", '{"a":1}'), ("call_2", "g", '{"b":2}')]
    async with serving(settings, OPENAI) as (client, provider):
        for form, pieces in TOOLS.items():
            provider.behave = streams(ROLE, *pieces)
            answer = await client.post(CHAT, json=asked())
            found = read(answer.content, wants_usage=False)
            assert (found.calls, found.finish_reason) == (both, "tool_calls"), form


async def test_a_call_without_an_id_gets_one(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(ROLE, tools(without(FIRST, "id")), *TAIL)
        found = read((await client.post(CHAT, json=asked())).content, wants_usage=False)
    assert found.calls[0][0]
    assert found.calls[0][1:] == ("f", '{"a":1}')


async def test_thoughts_come_beside_the_text(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(ROLE, chunk({"reasoning": "Hm."}), *HELLO, FINISH, LAST, DONE)
        found = read((await client.post(CHAT, json=asked())).content, wants_usage=False)
    assert (found.thoughts, found.text) == ("Hm.", "Hello.")


TOKEN = {"token": "Hel", "logprob": -0.1, "bytes": None, "top_logprobs": []}
DETAILS = {"completion_tokens_details": {"reasoning_tokens": 7}}
UNKNOWN = [
    OPENAI.event(choices=[], prompt_filter_results=[{"prompt_index": 0}]),
    OPENAI.event(model="some-model", system_fingerprint="fp", service_tier=None,
        obfuscation="x", choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]),
    *(OPENAI.event(system_fingerprint="fp", choices=[
        {"index": 0, "delta": {"content": text}, "logprobs": {"content": [TOKEN]}}
    ]) for text in ("Hel", "lo.")),
    chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),
    chunk({}, finish_reason="stop", stop_reason=7),
    OPENAI.event(choices=[], citations=["https://example.org"], usage={**USAGE, **DETAILS}),
    DONE,
]  # fmt: skip


async def test_members_of_chunks_that_we_do_not_know_reach_a_client_of_the_same_protocol(
    users, orm, settings
):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(*UNKNOWN)
        answer = await client.post(CHAT, json=asked(**WITH_USAGE, logprobs=True))
        row = await latest_row()
        foreign = await client.post(
            "/u/5/v1/messages", json={**asked(), "max_tokens": 5, "stream": True}
        )
    found = read(answer.content, wants_usage=True)
    assert (found.text, found.finish_reason) == ("Hello.", "stop")
    assert found.usage == {**DETAILS, **USAGE}
    chunks = [
        json.loads(each.removeprefix(b"data: ")) for each in answer.content.split(b"\n\n")[:-2]
    ]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert [c["logprobs"] for c in choices if c["logprobs"]] == [{"content": [TOKEN]}] * 2
    assert sum("reasoning_details" in c["delta"] for c in choices) == 1
    assert [c["stop_reason"] for c in choices if "stop_reason" in c] == [7]
    for name in ("system_fingerprint", "prompt_filter_results", "citations"):
        assert sum(name in chunk for chunk in chunks) == 1, f"{name} comes once"
    assert b"obfuscation" not in answer.content
    assert (row.body.result, row.body.blocks) == ("Hello.", "")
    assert foreign.status_code == 200
    assert b"fingerprint" not in foreign.content


async def test_a_stream_of_anthropic_comes_in_the_same_form(users, orm, settings):
    events = ANTHROPIC.stream("Hel", "lo.")
    tool = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    events[-2:-2] = [
        ANTHROPIC.event("content_block_start", index=1, content_block=tool),
        ANTHROPIC.event(
            "content_block_delta",
            index=1,
            delta={"type": "input_json_delta", "partial_json": '{"a":1}'},
        ),
        ANTHROPIC.event("content_block_stop", index=1),
    ]
    events[-2] = events[-2].replace(b"end_turn", b"tool_use")
    async with serving(settings, ANTHROPIC) as (client, provider):
        provider.behave = streams(*events)
        answer = await client.post(CHAT, json=asked(ANTHROPIC.model, **WITH_USAGE))
        found = read(answer.content, wants_usage=True)
    assert found.text == "Hello."
    assert found.calls == [("toolu_1", "f", '{"a":1}')]
    assert found.finish_reason == "tool_calls"
    assert found.usage == USAGE


async def test_an_answer_that_came_whole_is_streamed_all_the_same(users, orm, settings):
    async with serving(settings, OPENAI) as (client, _provider):
        found = read((await client.post(CHAT, json=asked())).content, wants_usage=False)
    assert found.text == "Hello."


BROKEN = {
    "torn": ([ROLE, *HELLO, Ending.TORN], "stream-broken"),
    "no finish": ([ROLE, *HELLO], "stream-broken"),
    "no finish, but the end": ([ROLE, *HELLO, DONE], "stream-broken"),
    "an error": ([ROLE, *HELLO, OPENAI.error_event("overloaded")], "llm-overloaded"),
    "an error, and the end": (
        [ROLE, *HELLO, OPENAI.error_event("overloaded"), DONE],
        "llm-overloaded",
    ),
    "an error as an event of its own": (
        [ROLE, *HELLO, b"event: error\n" + OPENAI.error_event("overloaded")],
        "llm-overloaded",
    ),
    "an error without its object": (
        [ROLE, *HELLO, b"event: error\n" + OPENAI.event(**OPENAI.error("overloaded")["error"])],
        "llm-overloaded",
    ),
    "an error beside a choice": (
        [
            ROLE,
            *HELLO,
            OPENAI.event(
                **OPENAI.error("overloaded"),
                choices=[{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            ),
        ],
        "llm-overloaded",
    ),
    "an error in words": ([ROLE, *HELLO, OPENAI.event(error="overloaded")], "llm-overloaded"),
}


async def test_an_answer_that_breaks_off_ends_with_an_error_and_never_as_if_it_were_whole(
    users, orm, settings
):
    async with serving(settings, OPENAI) as (client, provider):
        for form, (pieces, slug) in BROKEN.items():
            provider.behave = streams(*pieces)
            answer = await client.post(CHAT, json=asked(**WITH_USAGE))
            assert answer.status_code == 200, form
            *chunks, last, done = answer.content.removesuffix(b"\n\n").split(b"\n\n")
            assert b'finish_reason":"' not in b"".join(chunks), form
            assert done == b"data: [DONE]"
            error = json.loads(last.removeprefix(b"data: "))
            assert set(error) == {"error"}, form
            assert error["error"]["code"] == slug, form
            row = await latest_row()
            assert (row.status, row.error_type, row.body.result) == ("failed", slug, "Hello.")
            assert row.output_tokens > 0
            assert row.is_estimated


async def test_an_error_before_the_first_content_has_its_status(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(ROLE, OPENAI.error_event("limited"))
        answer = await client.post(CHAT, json=asked())
        assert answer.status_code == 429, answer.text
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        provider.behave = says(429, OPENAI.error("limited"), retry_after="7000")
        answer = await client.post(CHAT, json=asked())
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "60"
        assert answer.headers["x-should-retry"] == "true"


async def test_a_repetition_under_one_key_gets_the_first_answer_as_a_stream_and_whole(
    users, orm, settings
):
    headers = {"Idempotency-Key": "one"}
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(WHOLE)
        first = await client.post(CHAT, json=asked(), headers=headers)
        again = await client.post(CHAT, json=asked(**WITH_USAGE), headers=headers)
        whole = await client.post(CHAT, json=asked(stream=False), headers=headers)
        other = await client.post(CHAT, json=asked(seed=1), headers=headers)
        assert provider.calls == 1
    assert again.headers["idempotency-replayed"] == "true"
    assert read(first.content, wants_usage=False).text == "Hello."
    replayed = read(again.content, wants_usage=True)
    assert (replayed.text, replayed.usage) == ("Hello.", USAGE)
    assert replayed.id == whole.json()["id"]
    assert whole.json()["choices"][0]["message"]["content"] == "Hello."
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency-key-reused"
