"""Who is to blame: the caller reads what he can act on, an operator all else, and nobody more."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from generation import errors
from generation.llm import policy
from generation.llm.providers.error_bodies import read_error
from generation.llm.providers.parsing import without_quotes
from tests.support.dialects import OpenAIDialect
from tests.support.provider import says

REFUSED, RATE = errors.LLMRefused, errors.LLMRateLimited
OURS, KEY = errors.LLMMisconfigured, errors.LLMAuthentication
PROXY = 407  # the transport makes an error of it
LOADED, FAILED, BAD = errors.LLMOverloaded, errors.LLMUnreachable, errors.LLMBadReply


def error(message, **others):
    return {"error": {"message": message, **others}}


BODIES = [
    # Our wallet, key, model, parameter, address.
    (
        400,
        error("Credits are used up: your credit balance is 0.", type="invalid_request_error"),
        OURS,
    ),
    (400, error("This organization has been disabled."), OURS),
    (402, error("You can afford 7 tokens.", code=402), OURS),
    (403, error("Country not supported", code="unsupported_country_region_territory"), OURS),
    (429, error("Your plan is used up.", code="insufficient_quota"), OURS),
    (400, error("Insufficient balance", code="invalid_request_error"), OURS),
    (400, error("This key's specified API usage limits are reached until May."), OURS),
    (400, error("Your budget of 5 USD has been exceeded."), OURS),
    (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, OURS),
    (400, {"code": "bad argument", "error": "Incorrect API key provided: na***ys."}, KEY),
    (400, [error("API key not valid. Please pass a valid one.", code=400)], KEY),
    (400, {"code": "InvalidApiKey", "message": "No such key."}, KEY),
    (500, error("invalid api key"), KEY),
    (400, error("The model `m-1` has been decommissioned."), OURS),
    (400, {"object": "error", "message": "The model `m` does not exist.", "code": 404}, OURS),
    (200, {"object": "error", "message": "The model `m` does not exist.", "code": 404}, OURS),
    (400, error("m is not a valid model ID", code=400), OURS),
    (404, {"error": "model 'm' not found, try pulling it first"}, OURS),
    (400, {"message": "The model identifier m is invalid."}, OURS),
    (400, {"message": "Calling model m on demand isn\u2019t supported."}, OURS),
    (410, error("gone"), OURS),
    (
        400,
        error("Unsupported parameter: 'max_tokens' is not supported with this model.", code="x"),
        OURS,
    ),
    (400, error("no", code="unsupported_value", param="temperature"), OURS),
    (400, [error("Developer instruction is not enabled for m")], OURS),
    (500, error("System role not supported"), OURS),
    (422, {"detail": [{"msg": "Extra inputs are not permitted", "loc": ["stream"]}]}, OURS),
    (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, OURS),
    (404, {"detail": "Not Found"}, OURS),
    (407, {}, OURS),
    # The caller's prompt.
    (403, error("Your input was flagged", code=403, metadata={"flagged_input": "text"}), REFUSED),
    (400, error("The response was filtered", code="content_filter"), REFUSED),
    (400, error("Output blocked by content filtering policy"), REFUSED),
    (400, error("no", code="data_inspection_failed"), REFUSED),
    (400, error("This model's maximum context length is 8 tokens."), REFUSED),
    (400, error("prompt is too long: 9 tokens > 8 maximum"), REFUSED),
    (400, error("max_tokens is too large: 9. It supports at most 8.", param="max_tokens"), REFUSED),
    (429, error("Request too large for m: Limit 8, Requested 9."), REFUSED),
    (429, error("Request too large for m: 9 > 8", code="rate_limit_exceeded"), REFUSED),
    (500, error("the request exceeds the available context size"), REFUSED),
    (400, [error("Value is not a string: null", status="INVALID_ARGUMENT")], REFUSED),
    (422, {"detail": "input is odd"}, REFUSED),
    # The provider, for the moment.
    (400, error("Too many requests", code="ThrottlingException"), RATE),
    (403, error("quota", code="rateLimitExceeded"), RATE),
    (
        429,
        error("over the limit of 40 tokens per day, see /billing", code="rate_limit_exceeded"),
        RATE,
    ),
    (429, error("over the rate limit of 40 input tokens per minute"), RATE),
    (400, error("The model is overloaded, try again"), LOADED),
    (503, error("Model m is currently loading"), LOADED),
    (498, error("capacity exceeded"), LOADED),
    (424, error("Request failed during generation"), FAILED),
    (400, error("boom", type="api_error"), FAILED),
    (499, {}, FAILED),
    (525, {}, FAILED),
    (200, error("slow down", code=429), RATE),
    (200, error("Provider returned error", code=502), FAILED),
    (200, error("it is broken"), BAD),
    (200, {"detail": "it is broken"}, BAD),
]


@pytest.mark.parametrize(("status", "body", "kind"), BODIES, ids=lambda value: str(value)[:60])
def test_an_error_is_whose_it_is(status, body, kind):
    found = read_error(body, status)
    finding = policy.find(status, found.finding if found else None)
    assert type(policy.to_error(finding, "no", status_code=status)) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [case for case in BODIES if case[2] in {OURS, KEY} and case[0] != PROXY],
)
async def test_our_fault_is_an_operators_and_its_sentence_never_a_callers(
    client, server, prompt, caplog, status, body, kind
):
    server.behave = says(status, body)
    async with client() as llm:
        for _ in range(2):
            outcome = await llm.complete(prompt)
    assert outcome.error.status == 502
    with_an_error = " with an error" if status == 200 else ""
    assert outcome.error.detail.endswith(f"answered {status}{with_an_error}")
    assert len(server.requests) == 2, "asking again can't help"
    [alarm] = [r for r in caplog.records if r.name.startswith("generation.")]
    assert alarm.levelno == logging.ERROR
    assert server.url in alarm.getMessage(), "who has to act wants to know what was asked"


@pytest.mark.parametrize(("status", "body"), [case[:2] for case in BODIES if case[2] is REFUSED])
async def test_a_callers_fault_is_told_to_the_caller_and_not_to_the_log(
    client, server, prompt, caplog, status, body
):
    server.behave = says(status, body)
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert outcome.error.status == 422
    assert outcome.error.detail.endswith(f"answered {status}: {read_error(body, status).message}")
    assert not [r for r in caplog.records if r.name.startswith("generation.")]


async def test_an_alarm_names_where_a_redirect_leads(client, server, prompt, caplog):
    server.behave = says(301, b"", location="https://login.example/")
    async with client() as llm:
        assert type((await llm.complete(prompt)).error) is OURS
    [alarm] = [r.getMessage() for r in caplog.records if r.name.startswith("generation.")]
    assert "https://login.example/" in alarm


@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_an_alarm_does_not_quote_the_prompt(client, server, prompt, caplog):
    long = replace(prompt, text="My secret diary says hello.")
    server.behave = says(400, error(f"no such model for '{long.text}', sorry"))
    async with client() as llm:
        await llm.complete(long)
    [alarm] = [r.getMessage() for r in caplog.records if r.name.startswith("generation.")]
    assert "no such model for '[quoted]', sorry" in alarm
    assert "diary" not in alarm


def test_a_sentence_keeps_what_it_shares_with_a_text_by_chance():
    assert without_quotes("the model is gone", "is the model here?") == "the model is gone"
    assert without_quotes("said: abcdefghijkl!", "xabcdefghijklm") == "said: [quoted]!"
    assert without_quotes("", "text") == without_quotes("", "") == ""


async def test_the_callers_sentence_does_not_name_our_account(client, server, prompt):
    server.behave = says(429, error("Request too large for m in organization org-Ab3d5f7h: 9 > 8"))
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert "Request too large" in outcome.error.detail
    assert "org-" not in outcome.error.detail


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Sign in", b"\n <html>Sign in</html>"])
async def test_a_web_page_is_our_address_and_one_line_says_what_it_said(
    client, server, prompt, caplog, page
):
    server.behave = says(200, page, content_type="text/html")
    async with client() as llm:
        for _ in range(3):
            outcome = await llm.complete(prompt)
    assert type(outcome.error) is errors.LLMMisconfigured
    assert len(server.requests) == 3
    [alarm] = [r.getMessage() for r in caplog.records if r.name.startswith("generation.")]
    assert server.url in alarm
    assert "Sign in" in alarm
