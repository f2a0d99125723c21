"""Pages of Django's own handler have a bounded place of their own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from generation.asgi import stock_places
from generation.asgi.stock_places import AT_WORK, IN_PARTS, SEND_S, WAITING_OR_SENDING, StockPlaces
from generation.errors import TooManyInFlight
from tests.support import virtual_time
from tests.support.http import Wire, exchange, generate, head, request
from tests.support.waiting import HANG_S, until

LOGIN = "/admin/login/"
ALL = AT_WORK + WAITING_OR_SENDING


@pytest.fixture
def places() -> StockPlaces:
    return StockPlaces()


async def fill(places: StockPlaces):
    """Those at work, and the tasks of those that wait."""
    working = [await places.take() for _ in range(AT_WORK)]
    waiting = [asyncio.create_task(places.take()) for _ in range(WAITING_OR_SENDING)]
    await asyncio.sleep(0)
    return working, waiting


async def respond(_scope, _receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_few_work_more_wait_and_the_rest_is_refused_at_once(places):
    working, waiting = await fill(places)
    with pytest.raises(TooManyInFlight):
        await places.take()
    assert not any(task.done() for task in waiting)
    working[0].leave()
    working[0].leave()  # frees one place, not two
    await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == 1
    again = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    assert not again.done()
    for task in (*waiting, again):
        task.cancel()


def test_one_that_waits_too_long_or_leaves_gives_its_place_back(places):
    async def main() -> None:
        working, waiting = await fill(places)
        waiting.pop().cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {TooManyInFlight}
        for place in working:
            place.leave()
        for place in [await places.take() for _ in range(AT_WORK)]:
            place.leave()
        _, waiting = await fill(places)  # as many as at first
        for task in waiting:
            task.cancel()

    virtual_time.run(main())


def test_a_client_that_reads_slowly_keeps_nobody_from_working(places):
    async def main() -> None:
        reading = asyncio.Event()

        async def slow_send(message) -> None:
            if message["type"] == "http.response.body":
                await reading.wait()

        places_of_the_slow = [await places.take() for _ in range(AT_WORK)]
        slow = [
            asyncio.create_task(place.serve(respond, {}, None, slow_send))
            for place in places_of_the_slow
        ]
        await asyncio.sleep(0)
        place = await places.take()
        assert not any(task.done() for task in slow)
        place.leave()
        reading.set()
        await asyncio.gather(*slow)
        place = await places.take()
        reading.clear()
        began = asyncio.get_running_loop().time()
        await place.serve(respond, {}, None, slow_send)
        assert asyncio.get_running_loop().time() - began == pytest.approx(SEND_S)

    virtual_time.run(main())


def test_a_long_download_may_last_as_long_as_its_client_reads(places):
    """Each part of it has the time of a page; what it takes to make one does not count."""
    sent = []

    async def download(scope, _receive, send) -> None:
        scope[IN_PARTS] = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await asyncio.sleep(0.8 * SEND_S)
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def slow_send(message) -> None:
        await asyncio.sleep(0.4 * SEND_S)
        sent.append(message)

    async def stuck_send(message) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await (await places.take()).serve(download, {}, None, slow_send)
        assert len(sent) == 5, "four times the limit in all"
        await (await places.take()).serve(download, {}, None, stuck_send)

    virtual_time.run(main())


async def test_a_crowd_at_the_login_leaves_room_for_generations(serve):
    async with serve() as service:
        assert (await request(service.port, "GET", LOGIN)).status == 200
        crowd = [
            asyncio.create_task(exchange(service.port, head(path=LOGIN, method="GET")))
            for _ in range(100)
        ]
        replies = [await generate(service.port) for _ in range(5)]
        assert {reply.status for reply in replies} == {200}
        statuses = Counter(reply.status for reply in await asyncio.gather(*crowd))
        threads = len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))
        assert threads < 60
        assert set(statuses) <= {200, 503}  # 503 after waiting too long
        assert statuses[200] > AT_WORK
        assert (await request(service.port, "GET", LOGIN)).status == 200


async def test_many_logins_at_once_succeed_or_are_told_to_come_back(serve, orm):
    """Each wants one of Django's four connections."""
    await sync_to_async(User.objects.create_superuser)("boss", password="its password 7", id=50)
    async with serve(LOG_LEVEL="WARNING") as service:
        cookie = (await request(service.port, "GET", LOGIN)).headers["set-cookie"].split(";")[0]
        token = cookie.partition("=")[2]
        values = {"username": "boss", "password": "its password 7", "csrfmiddlewaretoken": token}
        body = urlencode(values).encode()
        lines = (
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
            f"Cookie: {cookie}",
        )
        login = head(*lines, path=LOGIN) + body
        answers = await asyncio.gather(*(exchange(service.port, login) for _ in range(16)))
        statuses = Counter(answer.status for answer in answers)
        assert set(statuses) <= {302, 503}, statuses
        assert statuses[302] >= AT_WORK
        waits = {answer.headers.get("retry-after") for answer in answers if answer.status == 503}
        assert waits <= {"1"}
        assert "Traceback" not in service.log


async def test_clients_that_leave_while_they_wait_give_their_places_back(serve):
    async with serve() as service:
        for _ in range(2):
            wires = [await Wire.begin(service.port, "GET", LOGIN) for _ in range(ALL)]
            await asyncio.gather(*(wire.leave() for wire in wires))

        async def is_served() -> bool:
            return (await request(service.port, "GET", LOGIN)).status == 200

        await until(is_served, "a place")  # what is at work ends first
        assert "Traceback" not in service.log


async def test_a_page_that_steps_aside_leaves_its_place_to_another(places):
    """A search in the admin waits for the database; it works on in its thread meanwhile."""
    go_on = threading.Event()

    async def search(_scope, _receive, send) -> None:
        await sync_to_async(stock_places.step_aside)()
        await sync_to_async(go_on.wait, thread_sensitive=False)()
        await respond(_scope, _receive, send)

    async def nothing(_message) -> None: ...

    taken = [await places.take() for _ in range(AT_WORK)]
    serving = [asyncio.create_task(each.serve(search, {}, None, nothing)) for each in taken]
    others = [await asyncio.wait_for(places.take(), HANG_S) for _ in range(AT_WORK)]
    go_on.set()
    await asyncio.gather(*serving)
    waiting = asyncio.create_task(places.take())
    for each in taken:
        each.leave()
    await asyncio.sleep(0)
    assert not waiting.done(), "a place that was left early is given back once"
    for each in others:
        each.leave()
    (await waiting).leave()
