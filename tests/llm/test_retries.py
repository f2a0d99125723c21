"""Retries and deadlines, against a real server, in both dialects."""

from __future__ import annotations

import asyncio
import time

import pytest

from generation import errors
from generation.conf import parse
from generation.llm.client import LLMClient
from tests.support.dialects import PROMPT, OpenAIDialect, slugs
from tests.support.provider import Provider, drips, hangs, resets, says
from tests.support.waiting import HANG_S

# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_a_passing_failure_is_tried_again(client, server, dialect, prompt, status):
    server.script = [says(status, dialect.error("other"), retry_after="0")]
    async with client() as llm:
        outcome = await llm.complete(prompt)
    assert outcome.reply is not None
    assert [attempt.status for attempt in outcome.attempts] == [status, 200]


@pytest.mark.parametrize("behaviour", [resets, says(200, b"busy")], ids=["reset", "not JSON"])
async def test_a_broken_exchange_is_tried_again(client, server, prompt, behaviour):
    server.script = [behaviour]
    async with client() as llm:
        assert (await llm.complete(prompt)).require_reply().text == "Hello."
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.LLMRefused),
        (401, errors.LLMAuthentication),
        (402, errors.LLMMisconfigured),
        (403, errors.LLMAuthentication),
        (404, errors.LLMMisconfigured),
        (413, errors.LLMRefused),
        (307, errors.LLMMisconfigured),
    ],
)
async def test_a_lasting_failure_is_not_tried_again(client, server, dialect, status, kind):
    server.behave = says(status, dialect.error("other"), location=server.url)
    async with client() as llm:
        outcome = await llm.complete(PROMPT)
    assert len(server.requests) == 1
    assert type(outcome.error) is kind
    assert outcome.error.status_code == status
    assert [attempt.status for attempt in outcome.attempts] == [status]


async def test_attempts_are_bounded(client, server, dialect, prompt):
    server.behave = says(500, dialect.error("other"), retry_after="0")
    async with client(LLM_MAX_ATTEMPTS=3) as llm:
        outcome = await llm.complete(prompt)
    assert len(server.requests) == 3
    assert type(outcome.error) is errors.LLMUnreachable
    assert slugs(outcome.attempts) == ["llm-unreachable"] * 3
    assert (outcome.provider, outcome.model) == (dialect.name, dialect.model)


async def test_the_provider_can_forbid_a_retry(client, server, dialect, prompt):
    server.behave = says(500, dialect.error("other"), x_should_retry="false")
    async with client() as llm:
        with pytest.raises(errors.LLMUnreachable):
            (await llm.complete(prompt)).require_reply()
    assert len(server.requests) == 1


async def test_retry_after_is_waited_for(client, server, dialect, prompt):
    server.script = [says(429, dialect.error("limited"), retry_after_ms="300")]
    async with client() as llm:
        began = time.monotonic()
        (await llm.complete(prompt)).require_reply()
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_retry_after_beyond_the_deadline_is_passed_on_at_once(
    client, server, dialect, prompt, status
):
    server.behave = says(status, dialect.error("other"), retry_after="3600")
    async with client() as llm, asyncio.timeout(HANG_S):  # it must not sleep: waiting can't help
        with pytest.raises(errors.LLMError) as caught:
            (await llm.complete(prompt)).require_reply()
    assert caught.value.status == (429 if status == 429 else 503)
    assert caught.value.retry_after_header == "3600"
    assert len(server.requests) == 1


async def test_one_idempotency_key_across_attempts():
    dialect = OpenAIDialect()
    async with Provider(says(200, dialect.answer())).serve() as server:
        server.script = [says(500, b"", retry_after="0")]
        async with LLMClient.open(parse(dialect.settings(server.url))) as llm:
            (await llm.complete(PROMPT)).require_reply()
            (await llm.complete(PROMPT)).require_reply()
    first, again, other = (request.headers["idempotency-key"] for request in server.requests)
    assert first == again
    assert first != other


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [hangs, drips])
async def test_the_deadline_holds_against_silence_and_drips(client, server, prompt, behaviour):
    server.behave = behaviour
    async with client(LLM_TIMEOUT=0.5, LLM_ATTEMPT_TIMEOUT=30) as llm:
        began = time.monotonic()
        with pytest.raises(errors.LLMTimedOut) as caught:
            (await llm.complete(prompt)).require_reply()
    assert 0.5 <= time.monotonic() - began < HANG_S
    assert caught.value.row_status == "timed_out"
    await server.until(lambda: server.connected == 0, "closing of the connection")


async def test_one_attempt_has_a_bound_of_its_own(client, server, prompt):
    server.script = [drips]
    async with client(LLM_TIMEOUT=120, LLM_ATTEMPT_TIMEOUT=0.5) as llm:
        outcome = await llm.complete(prompt)
    assert outcome.reply is not None
    assert slugs(outcome.attempts) == ["llm-timed-out", ""]
    assert 500 <= outcome.attempts[0].ms < HANG_S * 1000


async def test_the_deadline_is_over_all_attempts(client, server, prompt):
    server.behave = hangs
    async with client(LLM_TIMEOUT=0.6, LLM_ATTEMPT_TIMEOUT=0.5, LLM_MAX_ATTEMPTS=20) as llm:
        began = time.monotonic()
        with pytest.raises(errors.LLMTimedOut):
            (await llm.complete(prompt)).require_reply()
    assert time.monotonic() - began < 9, "twenty attempts of 0.5 s take ten seconds"
