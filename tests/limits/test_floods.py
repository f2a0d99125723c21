"""A flood of one API key's requests leaves the others their turns."""

from __future__ import annotations

import asyncio

from asgiref.sync import sync_to_async

from generation.models import Limit
from generation.runtime import process, refusal_pace
from tests.support import http
from tests.support.keys import amake_key, bearer, rows_of
from tests.support.waiting import until
from tests.support.windows import zone_of_noon

FLOOD = 100
LEFT = refusal_pace.AT_ONCE
HELD = FLOOD - LEFT


async def until_held(number: int) -> None:
    pace = process.current().admission.refusal_pace
    await until(lambda: pace.held == number, f"{number} refusals that wait")


async def test_the_refusals_of_a_flood_wait_while_others_are_served(here, orm, monkeypatch):
    monkeypatch.setattr(refusal_pace, "EVERY_S", 3600.0)
    flooding, quiet = [(*bearer(await amake_key()).items(),) for _ in range(2)]
    key = await sync_to_async(rows_of(flooding[0][1].removeprefix("Bearer ")).get)()
    await Limit.objects.acreate(
        scope="key", api_key=key, unit="requests", amount=1, window="day", zone=zone_of_noon()
    )
    async with here() as service:

        def ask(headers) -> asyncio.Task[http.Answer]:
            return asyncio.create_task(http.generate(service.port, headers=headers))

        assert (await ask(flooding)).status == 200
        holds = process.current().database.pool.holds
        before = holds.count
        flood = [ask(flooding) for _ in range(FLOOD)]
        await until_held(HELD)
        assert holds.count - before < LEFT, "a refusal needs no statement of its own"
        assert (await ask(quiet)).status == 200
        answered = [task for task in flood if task.done()]
        assert len(answered) <= LEFT, "the flood's clients set the pace of the loop"

        leaving = [task for task in flood if not task.done()][:10]
        for task in leaving:
            task.cancel()
        await until_held(HELD - len(leaving))

        process.current().drain.begin()
        answers = await asyncio.gather(*flood, return_exceptions=True)
        statuses = [answer.status for answer in answers if isinstance(answer, http.Answer)]
        assert statuses == [429] * (FLOOD - len(leaving)), "an ending process lets all leave"
