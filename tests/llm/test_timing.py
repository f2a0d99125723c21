"""A stall of our own process costs no answer that came in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from generation import timing
from generation.timing import FairTimeout
from tests.support import virtual_time
from tests.support.dialects import slugs
from tests.support.provider import hangs, says
from tests.support.waiting import HANG_S

LIMIT_S = 0.3
STALL_S = LIMIT_S + 0.2


async def test_an_answer_that_waits_in_the_socket_after_a_stall_is_read(
    client, dialect, server, prompt, monkeypatch
):
    async def answer_and_stall(exchange):
        await says(200, dialect.answer())(exchange)
        time.sleep(STALL_S)  # the service shares this loop

    monkeypatch.setattr(timing, "GRACE_S", 10)  # on a crowded machine, reading takes its time
    monkeypatch.setattr(timing, "GRACE_PER_LATE", 50)
    server.behave = answer_and_stall
    async with client(LLM_TIMEOUT=5, LLM_ATTEMPT_TIMEOUT=LIMIT_S) as llm:
        for _ in range(3):
            outcome = await llm.complete(prompt)
            assert slugs(outcome.attempts) == [""]
    assert server.calls == 3


async def test_a_call_without_an_answer_ends_after_a_stall(client, server, prompt):
    async def stall_and_hang(exchange):
        time.sleep(STALL_S)  # the service shares this loop
        await hangs(exchange)

    server.behave = stall_and_hang
    async with client(LLM_TIMEOUT=5, LLM_ATTEMPT_TIMEOUT=LIMIT_S, LLM_MAX_ATTEMPTS=1) as llm:
        outcome = await asyncio.wait_for(llm.complete(prompt), HANG_S)
    assert slugs(outcome.attempts) == ["llm-timed-out"]


@pytest.mark.parametrize("ahead", [0.05, 0, -60])
async def test_without_a_stall_there_is_no_grace(ahead):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with FairTimeout(asyncio.get_running_loop().time() + ahead):
            await asyncio.Event().wait()
    assert time.monotonic() - began < HANG_S


def test_the_end_moves_with_each_sign_of_life_and_not_beyond():
    async def main():
        clock = asyncio.get_running_loop().time
        with pytest.raises(TimeoutError):
            async with FairTimeout(clock() + 5) as limit:
                for _ in range(10):
                    await asyncio.sleep(4)
                    limit.move_to(clock() + 5)
                await asyncio.sleep(60)
        assert 44.9 < clock() < 45.6
        with pytest.raises(TimeoutError):
            async with FairTimeout(clock() + 1000) as limit:
                limit.move_to(clock() + 1)
                await asyncio.sleep(60)
        assert clock() < 47

    virtual_time.run(main())


def test_a_sign_of_life_that_is_read_late_lifts_the_limit():
    async def main():
        loop = asyncio.get_running_loop()
        async with FairTimeout(loop.time() + 1) as limit:
            virtual_time.stall(3)
            await asyncio.sleep(0)  # the timer finds out that it is late, and gives some grace
            await asyncio.sleep(0)
            limit.move_to(loop.time() + 60)
            await asyncio.sleep(50)

    virtual_time.run(main())
