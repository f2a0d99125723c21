"""The endpoint's contract: its answer, and a problem document for everything else."""

from __future__ import annotations

import uuid

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model

from generation.api import trace_context
from generation.llm.providers import simulated
from generation.llm.providers.base import Answer
from generation.models import GenerationLog, Profile, UsageLog
from generation.records import Usage
from tests.support.in_process import in_process_client
from tests.support.problems import PROBLEM, problem

BIGINT_MAX = 2**63 - 1


async def test_an_empty_body_is_answered_as_the_articles_client_expects(client):
    answer = await client.post("/api/v1/generate/1")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["result"]
    assert body["tokens"] == body["usage"]["total_tokens"]
    assert body["tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    assert body["model"].startswith("simulated")
    assert body["provider"] == "simulated"
    assert body["latency_ms"] >= 0
    assert uuid.UUID(body["id"]).version == 7
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_the_row_of_an_answer_is_committed_before_the_answer_leaves(client):
    answer = await client.post(
        "/api/v1/generate/2", json={"input": "hi"}, headers={"X-Request-ID": "trace-7"}
    )
    row = await GenerationLog.objects.select_related("body").aget(id=answer.json()["id"])
    assert row.body.prompt == "Say: hi!"
    assert row.body.result == answer.json()["result"]
    assert row.status == "succeeded"
    assert row.user_id == 2
    assert row.total_tokens == answer.json()["tokens"]
    assert row.request_id == "trace-7" == answer.headers["x-request-id"]
    assert row.latency_ms >= row.llm_latency_ms
    assert len(row.attempts) == 1


async def test_usage_is_recorded_after_the_answer_at_the_latest_at_shutdown(users, orm):
    from generation.runtime.process import Runtime

    async with Runtime.open(), in_process_client() as client:
        tokens = (await client.post("/api/v1/generate/1")).json()["tokens"]
    usage = await UsageLog.objects.aget()
    assert (usage.user_id, usage.tokens) == (1, tokens)


async def test_tokens_that_the_provider_did_not_count_are_zero_to_a_client_and_unknown_in_the_row(
    client, monkeypatch
):
    def uncounted(prompt, model):
        return Answer("Hello.", Usage(9, None), model, "end_turn")

    monkeypatch.setattr(simulated, "_answer", uncounted)
    headers = {"Idempotency-Key": "uncounted"}
    first = await client.post("/api/v1/generate/1", headers=headers)
    again = await client.post("/api/v1/generate/1", headers=headers)
    assert first.json()["usage"] == {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}
    assert first.json() == again.json()
    row = await GenerationLog.objects.select_related("body").aget(id=first.json()["id"])
    assert (row.input_tokens, row.output_tokens, row.total_tokens) == (9, None, None)


async def test_a_byte_order_mark_before_the_body_is_passed_over(client):
    answer = await client.post(
        "/api/v1/generate/2",
        content=b'\xef\xbb\xbf{"input": "hi"}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200, answer.text


async def test_variables_fill_the_template(client):
    answer = await client.post(
        "/api/v1/generate/3", json={"input": "why?", "variables": {"tone": "dry"}}
    )
    row = await GenerationLog.objects.select_related("body").aget(id=answer.json()["id"])
    assert row.body.prompt == "In a dry tone: why?"


BAD_INPUT = [
    ("99", b"", 404, "unknown-user"),
    ("4", b"", 404, "unknown-user"),  # inactive
    ("5", b"", 404, "unknown-user"),  # no profile
    (str(2**31), b"", 404, "unknown-user"),  # beyond the key's own type
    (str(BIGINT_MAX), b"", 404, "unknown-user"),
    (str(BIGINT_MAX + 1), b"", 422, "invalid-request"),
    ("0", b"", 422, "invalid-request"),
    ("-1", b"", 422, "invalid-request"),
    ("9" * 5000, b"", 422, "invalid-request"),
    ("abc", b"", 422, "invalid-request"),
    ("1", b"{", 400, "malformed-body"),
    ("1", b"\xff", 400, "malformed-body"),
    ("1", b"[" * 100_000, 400, "malformed-body"),
    ("1", b'{"max_tokens": NaN}', 400, "malformed-body"),
    ("1", b"[]", 422, "invalid-request"),
    ("1", b'"text"', 422, "invalid-request"),
    ("1", b'{"input": 7}', 422, "invalid-request"),
    ("1", b'{"inputs": "x"}', 422, "invalid-request"),
    ("1", b'{"input": "a\\u0000b"}', 422, "invalid-request"),
    ("1", b'{"input": "\\ud800"}', 422, "invalid-request"),
    ("1", b'{"variables": {"a\\u0000": "b"}}', 422, "invalid-request"),
    ("1", b'{"variables": {"a": 1}}', 422, "invalid-request"),
    ("1", b'{"max_tokens": 0}', 422, "invalid-request"),
    ("1", b'{"max_tokens": 99999999999999999999999}', 422, "invalid-request"),
    ("1", b'{"model": "no-such-model"}', 422, "model-not-allowed"),
    ("1", b'{"model": "%s"}' % (b"m" * 201), 422, "invalid-request"),
    ("3", b"{}", 422, "missing-variable"),
    ("1", b"x" * 1_048_577, 413, "body-too-large"),
]


async def test_bad_input_is_a_problem_of_its_own_type_and_leaves_no_row(client, subtests):
    for path, body, status, slug in BAD_INPUT:
        with subtests.test(path=path[:40], body=body[:40]):
            answer = await client.post(f"/api/v1/generate/{path}", content=body)
            assert problem(answer) == (status, slug)
            assert not await GenerationLog.objects.aexists()


async def test_a_missing_variable_is_named(client):
    answer = await client.post("/api/v1/generate/3", json={"input": "x"})
    assert "'tone'" in answer.json()["detail"]


async def test_a_faulty_field_is_named(client):
    answer = await client.post("/api/v1/generate/1", json={"input": 7})
    assert answer.json()["errors"] == [
        {"where": "body.input", "why": "Input should be a valid string"}
    ]


@sync_to_async
def set_template(template: str) -> None:
    Profile.objects.filter(user_id=1).update(prompt_template=template)


PROMPTLESS = [("", "empty-prompt"), (" \n", "empty-prompt"), ("$", "invalid-template")]


async def test_a_template_that_yields_no_prompt_is_a_problem(client, subtests):
    for template, slug in PROMPTLESS:
        with subtests.test(template=template, slug=slug):
            await set_template(template)
            assert problem(await client.post("/api/v1/generate/1")) == (422, slug)


async def test_a_wrong_method_is_a_problem_that_says_what_is_allowed(client):
    answer = await client.get("/api/v1/generate/1")
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


async def test_an_unknown_path_of_the_api_is_a_problem(client):
    assert problem(await client.get("/api/v1/nope")) == (404, "not-found")


REFUSALS = [
    ("/api/v1/generate/1", {}, "{", 400),
    ("/api/v1/generate/1", {"X-API-Key": "stc_wrong"}, "{}", 401),
    ("/api/v1/generate/1", {}, '{"nope": 1}', 422),
    ("/api/v1/generate/99", {}, "{}", 404),
    ("/api/v1/nope", {}, "{}", 404),
]


async def test_every_refusal_returns_the_request_id(client, subtests):
    for path, headers, body, status in REFUSALS:
        with subtests.test(path=path, headers=headers, body=body, status=status):
            sent = {"X-Request-ID": "trace-7", "content-type": "application/json", **headers}
            answer = await client.post(path, content=body, headers=sent)
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, "trace-7")


async def test_an_unfit_request_id_is_replaced(client, subtests):
    for given in ["", "with space", "x" * 129, "é"]:
        with subtests.test(given=given):
            answer = await client.post(
                "/api/v1/generate/1", headers=[(b"x-request-id", given.encode("latin1"))]
            )
            assert answer.status_code == 200
            assert answer.headers["x-request-id"] not in {given, ""}


async def test_a_users_deletion_while_the_model_thinks_loses_no_row(client):
    answer = await client.post("/api/v1/generate/1")
    await get_user_model().objects.filter(id=1).adelete()
    row = await GenerationLog.objects.select_related("body").aget(id=answer.json()["id"])
    assert row.user_id == 1


async def test_the_documentation_shows_every_problem_by_example(client):
    schema = (await client.get("/api/v1/openapi.json")).json()
    operation = schema["paths"]["/api/v1/generate/{user_id}"]["post"]
    assert operation["requestBody"]["required"] is False
    for status, response in operation["responses"].items():
        if status == "200":
            assert response["content"]["application/json"]["example"]["result"]
        else:
            assert list(response["content"]) == [PROBLEM], status
            assert response["content"][PROBLEM]["examples"], status
    slugs = {
        slug
        for response in operation["responses"].values()
        for slug in response["content"].get(PROBLEM, {"examples": {}})["examples"]
    }
    assert {"unknown-user", "missing-variable", "database-unavailable", "llm-timed-out"} <= slugs


async def test_the_documentation_brings_its_own_assets(runtime, settings):
    settings.SERVESTATIC_USE_FINDERS = True
    async with in_process_client() as client:
        page = (await client.get("/api/v1/docs")).text
        script = page.split('<script src="')[1].split('"')[0]
        assert (await client.get(script)).status_code == 200
    assert "https://" not in page.replace("https://django-ninja", ""), "an asset comes from a CDN"


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f" 00-{TRACE}-b7ad6b7169203331-00 ", TRACE),
        (f"01-{TRACE}-b7ad6b7169203331-01-more", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", ""),
        (f"ff-{TRACE}-b7ad6b7169203331-01", ""),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", ""),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE}", ""),
        ("", ""),
    ],
)
def test_a_valid_traceparent_names_the_trace(traceparent, kept):
    trace = trace_context.read(traceparent)
    assert trace.trace_id == kept
    assert trace.span_id == ("b7ad6b7169203331" if kept else "")
    assert trace.is_sampled == (bool(kept) and "-01" in traceparent[50:])


async def test_a_row_keeps_the_callers_metadata_and_trace(client):
    answer = await client.post(
        "/api/v1/generate/1",
        json={"metadata": {"ticket": "4711", "von": "Z\u00fcrich"}, "max_tokens": 7},
        headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
    )
    row = await GenerationLog.objects.aget(id=answer.json()["id"])
    assert row.metadata == {"ticket": "4711", "von": "Z\u00fcrich"}
    assert (row.trace_id, row.max_tokens, row.api_key_id) == (TRACE, 7, None)
    assert (row.cache_read_tokens, row.replay_of) == (0, None)


BAD_METADATA = [
    ({str(n): "" for n in range(17)}, "more than 16 members"),
    ({"": "x"}, "at least 1 character"),
    ({"n" * 65: "x"}, "at most 64 characters"),
    ({"n": "x" * 513}, "at most 512 characters"),
    ({"n": 1}, "valid string"),
    ({"n": {}}, "valid string"),
    ({"n": "\0"}, "NUL"),
    ([], "valid dictionary"),
]


async def test_metadata_is_small_and_text(client, subtests):
    for metadata, why in BAD_METADATA:
        with subtests.test(why):
            answer = await client.post("/api/v1/generate/1", json={"metadata": metadata})
            assert problem(answer) == (422, "invalid-request")
            assert why in answer.json()["errors"][0]["why"]
            assert not await GenerationLog.objects.aexists()
