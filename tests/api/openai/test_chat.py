"""Chat completions as OpenAI's clients ask for them: what reaches the provider, what comes back."""

from __future__ import annotations

import base64
import json

from generation.models import ApiKey, Profile
from tests.support.dialects import KEY, AnthropicDialect, OpenAIDialect
from tests.support.keys import amake_key, bearer
from tests.support.provider import says
from tests.support.upstream import latest_row, serving

OPENAI = OpenAIDialect()
ANTHROPIC = AnthropicDialect()
CHAT = "/u/5/v1/chat/completions"  # the user 5 has no profile
HELLO = [{"role": "user", "content": "Say hello."}]


def asked(model="some-model", **others):
    return {"model": model, "messages": HELLO, **others}


async def test_an_answer_has_what_clients_expect_and_its_row_tokens_and_cost(users, orm, settings):
    models = {"LLM_MODELS": "priced=openai:gpt-4o"}
    async with serving(settings, OPENAI, **models) as (client, _provider):
        answer = await client.post(CHAT, json=asked("priced"))
        row = await latest_row()
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["id"] == f"chatcmpl-{row.id}"
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello."},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    assert (row.user_id, row.status, row.total_tokens) == (5, "succeeded", 30)
    assert row.body.prompt == "Say hello."
    assert json.loads(row.body.conversation)["messages"][0]["role"] == "user"


async def test_a_provider_of_the_protocol_gets_and_returns_what_we_do_not_know(
    users, orm, settings
):
    message = {"role": "assistant", "content": "Hello.", "annotations": [{"url": "x"}]}
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": []}}
    reply = OPENAI.answer(choices=[choice], system_fingerprint="fp")
    reply["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
    given = asked(
        messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}],
        logprobs=True,
        seed=7,
        brand_new={"a": [1]},
        max_tokens=50,
        max_completion_tokens=40,
        metadata={"ticket": "4711"},
    )
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = says(200, reply)
        answer = await client.post(CHAT, json=given)
        row = await latest_row()
    sent = provider.requests[0].json
    assert sent == {
        **{name: value for name, value in given.items() if name != "max_completion_tokens"},
        "max_tokens": 40,
        "stream": False,
    }
    body = answer.json()
    assert body["system_fingerprint"] == "fp"
    assert body["choices"][0]["logprobs"] == {"content": []}
    assert body["choices"][0]["message"]["annotations"] == [{"url": "x"}]
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert row.metadata == {"ticket": "4711"}
    assert row.max_tokens == 40


async def test_a_profile_says_what_a_client_leaves_open(users, orm, settings):
    await Profile.objects.filter(user_id=1).aupdate(system="Be brief.", max_tokens=77)
    own = [{"role": "developer", "content": "Be long."}, *HELLO]
    async with serving(settings, OPENAI) as (client, provider):
        await client.post("/u/1/v1/chat/completions", json=asked())
        await client.post("/u/1/v1/chat/completions", json=asked(messages=own, max_tokens=5))
    first, second = (exchange.json for exchange in provider.requests)
    assert first["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert first["max_tokens"] == 77
    assert second["messages"] == own
    assert second["max_tokens"] == 5


async def test_another_provider_gets_the_conversation(users, orm, settings):
    pixel = base64.b64encode(b"pixel").decode()
    function = {"name": "f", "arguments": '{"a":1}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
    ]
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
    }
    given = asked(ANTHROPIC.model, messages=messages, tools=[tool], tool_choice="required", n=1)
    given |= {"user": "u", "stop": "END", "frequency_penalty": 0, "parallel_tool_calls": False}
    async with serving(settings, ANTHROPIC) as (client, provider):
        provider.behave = says(200, ANTHROPIC.tool_use("Look."))
        answer = await client.post(CHAT, json=given)
    assert answer.status_code == 200, answer.text
    sent = provider.requests[0].json
    assert sent["system"] == "Be brief."
    source = {"type": "base64", "media_type": "image/png", "data": pixel}
    use = {"type": "tool_use", "name": "f", "input": {"a": 1}}
    assert sent["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "source": source},
            ],
        },
        {"role": "assistant", "content": [{**use, "id": "c1"}, {**use, "id": "c2"}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": call_id,
                    "content": [{"type": "text", "text": text}],
                }
                for call_id, text in (("c1", "one"), ("c2", "two"))
            ],
        },
    ]
    assert sent["tools"] == [{
        "name": "f", "description": "", "input_schema": {"type": "object"}, "strict": True,
    }]  # fmt: skip
    assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert sent["stop_sequences"] == ["END"]
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Look."
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert choice["message"]["tool_calls"] == [call]


UNSAID = {
    "seed": asked(seed=1),
    "logit_bias": asked(logit_bias={"1": 2}),
    "messages.0.content.0.file": asked(
        messages=[{"role": "user", "content": [{"type": "file", "file": {}}]}]
    ),
    "messages.1.role": asked(messages=[*HELLO, {"role": "system", "content": "x"}, *HELLO]),
    "tools.0.custom": asked(tools=[{"type": "custom", "custom": {"name": "x"}}]),
    "reasoning_effort": asked(reasoning_effort="minimal"),
    "brand_new": asked(brand_new=1),
}


async def test_what_another_provider_has_no_place_for_is_refused_by_name_before_it_costs(
    users, orm, settings
):
    async with serving(settings, ANTHROPIC) as (client, provider):
        for name, body in UNSAID.items():
            answer = await client.post(CHAT, json={**body, "model": ANTHROPIC.model})
            assert answer.status_code == 400, name
            error = answer.json()["error"]
            assert name in error["message"], error
            assert error["code"] == "parameter-not-supported"
        assert provider.calls == 0


INVALID = {
    "messages": {"model": "some-model"},
    "messages.0.role": asked(messages=[{"content": "x"}]),
    "messages.0": asked(messages=["x"]),
    "messages.0.content": asked(messages=[{"role": "user", "content": 1}]),
    "model": {"messages": HELLO},
    "n": asked(n=2),
    "stream": asked(stream="yes"),
    "max_tokens": asked(max_tokens=0),
    "temperature": asked(temperature="hot"),
    "stop": asked(stop=[1]),
    "functions": asked(functions=[{"name": "f"}], stream=True),
    "tools.0.function.name": asked(tools=[{"type": "function", "function": {}}]),
}


async def test_a_request_that_is_not_valid_is_refused_with_the_member_at_fault(
    users, orm, settings
):
    async with serving(settings, OPENAI) as (client, provider):
        for param, body in INVALID.items():
            answer = await client.post(CHAT, json=body)
            assert answer.status_code == 400, param
            error = answer.json()["error"]
            assert error["param"] == param
            assert error["type"] == "invalid_request_error"
            assert error["message"].startswith(param)
            assert set(error) == {"message", "type", "param", "code"}
        assert provider.calls == 0


async def test_models_are_asked_for_by_their_names_and_by_those_of_llm_models(users, orm, settings):
    values = {"LLM_MODELS": "fast=openai:small", "LLM_ALLOWED": "openai:large"}
    async with serving(settings, OPENAI, **values) as (client, provider):
        listed = (await client.get("/v1/models")).json()
        for name in ("fast", "small", "large", "openai:large", "some-model"):
            assert (await client.post(CHAT, json=asked(name))).status_code == 200, name
        unknown = await client.post(CHAT, json=asked("huge"))
        one = await client.get("/v1/models/openai:large")
        found = await client.get("/v1/models/fast")
    assert [model["id"] for model in listed["data"]] == ["fast", "some-model", "large", "small"]
    sent = [exchange.json["model"] for exchange in provider.requests]
    assert sent == ["small", "small", "large", "large", "some-model"]
    assert unknown.status_code == one.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert found.json()["object"] == "model"


async def test_a_key_says_which_user_or_the_base_url_does(users, orm, settings):
    own = await amake_key(scope=ApiKey.Scope.USER, user_id=1)
    service = await amake_key()
    async with serving(settings, OPENAI, API_KEYS_REQUIRED="1") as (client, _provider):

        async def status(path, headers):
            answer = await client.post(f"{path}/chat/completions", json=asked(), headers=headers)
            return answer.status_code, answer.json().get("error", {}).get("code")

        assert await status("/v1", bearer(own)) == (200, None)
        assert (await latest_row()).user_id == 1
        assert await status("/v1", {"x-api-key": own}) == (200, None)
        assert await status("/u/1/v1", bearer(own)) == (200, None)
        assert await status("/u/2/v1", bearer(own)) == (403, "user-forbidden")
        assert await status("/u/2/v1", bearer(service)) == (200, None)
        assert (await latest_row()).user_id == 2
        assert await status("/v1", bearer(service)) == (400, "user-not-named")
        assert await status("/u/99/v1", bearer(service)) == (404, "unknown-user")
        assert await status("/v1", {}) == (401, "invalid_api_key")
        assert await status("/v1", bearer("stc_wrong")) == (401, "invalid_api_key")


async def test_where_no_key_is_required_one_of_another_vendor_is_none(users, orm, settings):
    async with serving(settings, OPENAI) as (client, _provider):
        for headers, status in (
            (bearer("sk-any"), 200),
            (bearer("stc_wrong"), 401),
            ({**bearer("sk-any"), "sec-fetch-site": "cross-site"}, 403),
        ):
            answer = await client.post(CHAT, json=asked(), headers=headers)
            assert answer.status_code == status, headers


async def test_errors_before_the_body_is_read_have_the_protocols_shape(users, orm, settings):
    values = {"MAX_CHAT_BODY_BYTES": "2048"}
    async with serving(settings, OPENAI, **values) as (client, provider):
        large = await client.post(CHAT, json=asked(user="x" * 3000))
        text = await client.post(CHAT, content=b"x", headers={"content-type": "text/plain"})
        broken = await client.post(CHAT, content=b"{")
        listed = await client.post(CHAT, content=b"[]")
        lost = await client.post("/v1/nothing", json={})
        root = await client.get("/u/5/v1/")
        wrong = await client.get(CHAT)
    answers = (large, text, broken, listed, lost, root, wrong)
    assert [answer.status_code for answer in answers] == [413, 415, 400, 400, 404, 404, 405]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
    assert provider.calls == 0


async def test_a_conversation_may_be_larger_than_a_template_and_its_row_is_bounded(
    users, orm, settings
):
    long = [{"role": "user", "content": f"{number} " + "ä" * 99_000} for number in range(20)]
    async with serving(settings, OPENAI) as (client, provider):
        answer = await client.post(CHAT, json=asked(messages=long))
        row = await latest_row()
        assert answer.status_code == 200, answer.text
        assert provider.requests[0].json["messages"] == long
        kept = json.loads(row.body.conversation)["messages"]
        assert len(row.body.conversation.encode()) <= 262_144
        assert kept[0]["content"][0]["text"] == "[19 earlier messages are not kept]"
        assert kept[-1]["content"][0]["text"].startswith("19 ")
        assert len(row.body.prompt) < 66_000
        huge = [{"role": "user", "content": "x" * 3_000_000}]
        await client.post(CHAT, json=asked(messages=huge))
        row = await latest_row()
    assert len(row.body.conversation) < 262_144
    assert "not kept whole" in row.body.conversation


async def test_embeddings_are_passed_on_and_logged_without_their_vectors(users, orm, settings):
    vectors = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": "AAAAPw=="}],
        "model": OPENAI.model,
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }
    given = {"model": OPENAI.model, "input": ["one", "two"], "encoding_format": "base64"}
    url = "/u/5/v1/embeddings"
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = says(200, vectors)
        answer = await client.post(url, json=given)
        row = await latest_row()
        keyed = await client.post(url, json=given, headers={"Idempotency-Key": "k"})
        empty = await client.post(url, json={"model": OPENAI.model})
        provider.behave = says(200, OPENAI.answer())
        odd = await client.post(url, json=given)
    assert answer.json() == vectors
    assert provider.requests[0].path.endswith("/embeddings")
    assert provider.requests[0].json == given
    assert (row.status, row.input_tokens, row.body.result) == ("succeeded", 6, "")
    assert row.body.prompt == "one\n\ntwo"
    assert [each.status_code for each in (keyed, empty, odd)] == [400, 400, 502]
    async with serving(settings, ANTHROPIC, LLM_MODEL="") as (client, provider):
        refused = await client.post(url, json={**given, "model": ANTHROPIC.model})
    assert refused.status_code == 400
    assert "embeddings" in refused.json()["error"]["message"]


async def test_a_parameter_that_the_provider_refuses_is_the_clients_fault_and_raises_no_alarm(
    users, orm, settings, caplog
):
    message = "Unsupported parameter: 'seed' is not supported with this model."
    refusal = {"error": {"message": message, "code": "unsupported_parameter"}}
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = says(400, refusal)
        answer = await client.post(CHAT, json=asked(seed=1))
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


NOTHING = [{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}]
NOTHING_YET = [{"message": {"role": "assistant", "content": ""}, "finish_reason": "length"}]


async def test_an_answer_that_says_nothing_is_an_answer(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        for choices, reason in ((NOTHING, "stop"), (NOTHING_YET, "length")):
            provider.behave = says(200, OPENAI.answer(choices=choices))
            for is_streamed in (False, True):
                answer = await client.post(CHAT, json=asked(stream=is_streamed))
                row = await latest_row()
                assert answer.status_code == 200, answer.text
                assert f'"finish_reason":"{reason}"' in answer.text
                assert (row.status, row.total_tokens, row.body.result) == ("succeeded", 30, "")


REFUSALS = {
    "where money may have been spent": (says(500, {"error": {"message": "x"}}), 502, "false"),
    "where nothing was paid": (says(429, {"error": {"message": "x"}}), 429, "true"),
    "for the client's own fault": (
        says(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
        400,
        "false",
    ),
}


async def test_an_error_says_whether_to_try_again(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        for why, (behave, status, advice) in REFUSALS.items():
            provider.behave = behave
            answer = await client.post(CHAT, json=asked())
            assert answer.status_code == status, why
            assert answer.headers["x-should-retry"] == advice, why
            if advice == "true":
                assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_the_providers_key_is_never_shown(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = says(401, {"error": {"message": f"Incorrect API key: {KEY}"}})
        answer = await client.post(CHAT, json=asked())
    assert KEY not in answer.text
