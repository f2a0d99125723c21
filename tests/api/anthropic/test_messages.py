"""Messages as Anthropic's clients ask for them: what reaches the provider, what comes back."""

from __future__ import annotations

from generation.models import Profile
from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import says, streams
from tests.support.upstream import latest_row, serving

OPENAI = OpenAIDialect()
ANTHROPIC = AnthropicDialect()
MESSAGES = "/u/5/v1/messages"  # the user 5 has no profile
HELLO = [{"role": "user", "content": "Say hello."}]
VERSION = {"anthropic-version": "2023-06-01"}


def asked(model=ANTHROPIC.model, **others):
    return {"model": model, "max_tokens": 50, "messages": HELLO, **others}


async def test_an_answer_has_what_clients_expect_and_its_row_tokens_and_cost(users, orm, settings):
    async with serving(settings, ANTHROPIC) as (client, _provider):
        answer = await client.post(MESSAGES, json=asked(), headers=VERSION)
        row = await latest_row()
    assert answer.status_code == 200, answer.text
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == row.request_id
    assert answer.json() == {
        "id": f"msg_{row.id.hex}",
        "type": "message",
        "role": "assistant",
        "model": ANTHROPIC.model,
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 20,
        },
    }
    assert (row.user_id, row.total_tokens, row.body.result) == (5, 30, "Hello.")
    assert row.cost_usd > 0


async def test_anthropic_gets_and_returns_what_we_do_not_know(users, orm, settings):
    cited = {"type": "text", "text": "Hello.", "citations": [{"cited_text": "x"}]}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    reply = ANTHROPIC.answer(content=[search, cited], container={"id": "c"})
    reply["usage"] |= {"service_tier": "standard", "cache_read_input_tokens": 5}
    given = asked(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        context_management={"edits": []},
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
        metadata={"user_id": "u"},
        thinking={"type": "adaptive"},
        top_k=3,
    )
    betas = {"anthropic-version": "2026-10-21", "anthropic-beta": "one-2026-01-01,two-2026-02-02"}
    async with serving(settings, ANTHROPIC) as (client, provider):
        provider.behave = says(200, reply)
        answer = await client.post(MESSAGES, json=given, headers=betas)
        row = await latest_row()
    exchange = provider.requests[0]
    assert exchange.json == {**given, "stream": False}
    assert {name: exchange.headers[name] for name in betas} == betas
    body = answer.json()
    assert body["content"] == [search, cited]
    assert body["container"] == {"id": "c"}
    assert body["usage"]["service_tier"] == "standard"
    assert (body["usage"]["input_tokens"], row.input_tokens) == (10, 15)
    assert row.metadata == {"user_id": "u"}


async def test_a_version_that_is_no_header_of_theirs_is_refused(users, orm, settings):
    async with serving(settings, ANTHROPIC) as (client, provider):
        headers = {"anthropic-version": "2023-06-01", "anthropic-beta": 'x"\\'}
        answer = await client.post(MESSAGES, json=asked(), headers=headers)
        assert answer.status_code == 400
        assert provider.calls == 0


async def test_a_profile_says_what_a_client_leaves_open(users, orm, settings):
    await Profile.objects.filter(user_id=1).aupdate(system="Be brief.", max_tokens=77)
    async with serving(settings, ANTHROPIC) as (client, provider):
        open_request = {"model": ANTHROPIC.model, "messages": HELLO}
        await client.post("/u/1/v1/messages", json=open_request, headers=VERSION)
        await client.post("/u/1/v1/messages", json=asked(system=""), headers=VERSION)
    first, second = (exchange.json for exchange in provider.requests)
    assert (first["system"], first["max_tokens"]) == ("Be brief.", 77)
    assert (second["system"], second["max_tokens"]) == ("", 50)


async def test_another_provider_gets_the_conversation(users, orm, settings):
    image = {"type": "base64", "media_type": "image/png", "data": "cGl4ZWw="}
    messages = [
        {"role": "user", "content": [{"type": "image", "source": image}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    given = asked(
        OPENAI.model,
        messages=messages,
        system=[{"type": "text", "text": "Be brief."}],
        tools=[{"name": "f", "input_schema": {"type": "object"}}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        metadata={"user_id": "u"},
    )
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = says(200, OPENAI.tool_use("Look."))
        answer = await client.post(MESSAGES, json=given, headers=VERSION)
    assert answer.status_code == 200, answer.text
    sent = provider.requests[0].json
    function = {"name": "f", "arguments": '{"a":1}'}
    url = {"url": "data:image/png;base64,cGl4ZWw="}
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image_url", "image_url": url}]},
        {
            "role": "assistant",
            "content": "Look.",
            "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "user", "content": "And?"},
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (sent["parallel_tool_calls"], sent["stop"]) == (False, ["END"])
    text, call = answer.json()["content"]
    assert text == {"type": "text", "text": "Look."}
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "f", {})
    assert call["id"]
    assert answer.json()["stop_reason"] == "tool_use"


UNSAID = {
    "top_k": asked(top_k=3),
    "context_management": asked(context_management={"edits": []}),
    "thinking": asked(thinking={"type": "enabled", "budget_tokens": 1024}),
    "messages.0.content.0.document": asked(
        messages=[{"role": "user", "content": [{"type": "document", "source": {}}]}]
    ),
    "tools.0.bash_20250124": asked(tools=[{"type": "bash_20250124", "name": "bash"}]),
}


async def test_what_another_provider_has_no_place_for_is_refused_by_name_before_it_costs(
    users, orm, settings
):
    async with serving(settings, OPENAI) as (client, provider):
        for name, body in UNSAID.items():
            answer = await client.post(MESSAGES, json={**body, "model": OPENAI.model})
            assert answer.status_code == 400, name
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert name in answer.json()["error"]["message"]
        assert provider.calls == 0


async def test_errors_have_the_protocols_shape(users, orm, settings):
    async with serving(settings, ANTHROPIC) as (client, provider):
        text = {"content-type": "text/plain"}
        answers = [
            await client.post(MESSAGES, content=b"x", headers=text),
            await client.post(MESSAGES, content=b"{"),
            await client.post(MESSAGES, json={"model": "x", "messages": []}),
            await client.post(MESSAGES, json=asked("huge")),
            await client.get(MESSAGES),
            await client.post("/v1/messages", json=asked()),
        ]
        provider.behave = streams(ANTHROPIC.error_event("limited"))
        answers.append(await client.post(MESSAGES, json=asked(stream=True)))
        provider.behave = says(529, ANTHROPIC.error("overloaded"))
        answers.append(await client.post(MESSAGES, json=asked()))
    assert [(answer.status_code, answer.json()["error"]["type"]) for answer in answers] == [
        (415, "invalid_request_error"),
        (400, "invalid_request_error"),
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (400, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "overloaded_error"),
    ]
    for answer in answers:
        body = answer.json()
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        assert body["request_id"] == answer.headers["request-id"]


async def test_tokens_are_counted_by_a_provider_that_does_and_without_a_row(users, orm, settings):
    url = f"{MESSAGES}/count_tokens"
    body = {"model": ANTHROPIC.model, "messages": HELLO}
    async with serving(settings, ANTHROPIC) as (client, provider):
        provider.behave = says(200, {"input_tokens": 9})
        answer = await client.post(url, json=body, headers=VERSION)
        assert await latest_row() is None
    assert answer.json() == {"input_tokens": 9}
    assert provider.requests[0].path == "/v1/messages/count_tokens"
    assert provider.requests[0].json == body
    async with serving(settings, OPENAI) as (client, provider):
        answer = await client.post(url, json={**body, "model": OPENAI.model}, headers=VERSION)
        assert provider.calls == 0
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")


async def test_the_list_of_models_has_the_shape_of_the_client_that_asks(users, orm, settings):
    async with serving(settings, ANTHROPIC) as (client, _provider):
        listed = (await client.get("/v1/models?limit=1000", headers=VERSION)).json()
        model = (await client.get(f"/v1/models/{ANTHROPIC.model}", headers=VERSION)).json()
    assert listed["data"] == [model]
    assert (listed["has_more"], listed["first_id"]) == (False, ANTHROPIC.model)
    assert (model["type"], model["id"]) == ("model", ANTHROPIC.model)
