"""The queue for calls at once serves keys in turn, and loses no place."""

from __future__ import annotations

import asyncio

import pytest

from generation.fair_queue import FairQueue


async def test_a_keys_many_waiters_do_not_delay_another_keys_few():
    queue, served = FairQueue(1), []
    await queue.acquire("held")

    async def wait(key):
        await queue.acquire(key)
        served.append(key)
        queue.release()

    waiters = [asyncio.create_task(wait(key)) for key in "aaaaabb"]
    await asyncio.sleep(0)
    queue.release()
    await asyncio.gather(*waiters)
    assert served == list("ababaaa")
    assert not queue.is_full


@pytest.mark.parametrize("is_served_first", [False, True])
async def test_a_waiter_that_is_cancelled_keeps_no_place(is_served_first):
    queue = FairQueue(1)
    await queue.acquire("held")
    waiters = [asyncio.create_task(queue.acquire(key)) for key in "ab"]
    await asyncio.sleep(0)
    if is_served_first:
        queue.release()
        waiters[0].cancel()
    else:
        waiters[0].cancel()
        queue.release()
    await asyncio.wait(waiters)
    assert queue.is_full
    queue.release()
    assert not queue.is_full
