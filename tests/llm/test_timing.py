"""A stall of our own process costs no answer that came in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from generation.llm.timing import GRACE_S, LATE_S, fair_timeout_at
from tests.support.dialects import slugs
from tests.support.provider import hangs, says

LIMIT_S = 0.3


async def test_an_answer_that_waits_in_the_socket_after_a_stall_is_read(
    client, dialect, server, prompt
):
    async def answer_and_stall(exchange):
        await says(200, dialect.answer())(exchange)
        time.sleep(LIMIT_S + 2 * LATE_S)  # the service shares this loop

    server.behave = answer_and_stall
    async with client(LLM_TIMEOUT=5, LLM_ATTEMPT_TIMEOUT=LIMIT_S) as llm:
        for _ in range(5):
            outcome = await llm.complete(prompt)
            assert slugs(outcome.attempts) == [""]
    assert server.calls == 5


async def test_a_call_without_an_answer_ends_soon_after_a_stall(client, server, prompt):
    async def stall_and_hang(exchange):
        time.sleep(LIMIT_S + 2 * LATE_S)  # the service shares this loop
        await hangs(exchange)

    server.behave = stall_and_hang
    async with client(LLM_TIMEOUT=5, LLM_ATTEMPT_TIMEOUT=LIMIT_S, LLM_MAX_ATTEMPTS=1) as llm:
        began = time.monotonic()
        outcome = await llm.complete(prompt)
    assert slugs(outcome.attempts) == ["llm-timed-out"]
    assert time.monotonic() - began < LIMIT_S + 2 * LATE_S + GRACE_S + 1


@pytest.mark.parametrize("ahead", [0.05, 0, -10])
async def test_without_a_stall_there_is_no_grace(ahead):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with fair_timeout_at(asyncio.get_running_loop().time() + ahead):
            await asyncio.Event().wait()
    assert time.monotonic() - began < max(ahead, 0) + LATE_S
