"""The live page in a real browser, with answers of the pool that the test makes up."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from generation.telemetry.snapshot import JournalSnapshot, PoolPage, Snapshot
from tests.support import http

PAGE = "/api/v1/live"
BECOME_HIDDEN = """is => {
    Object.defineProperty(document, "hidden", { get: () => is, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
PHONE = {"width": 390, "height": 844}
BUSY = Snapshot(
    size=10, max_overflow=20, open=3, peak_checked_out=2, requests_in_flight=25,
    peak_requests_in_flight=31, llm_calls_in_flight=25,
    max_requests_in_flight=5000, journal=JournalSnapshot(),
)  # fmt: skip
TROUBLED = replace(
    BUSY, draining=1, open_circuits=("anthropic",),
    journal=JournalSnapshot(rows=7, rows_in_memory_only=2),
)  # fmt: skip


class Pool:
    """What /api/v1/pool answers: a page, a problem, or nothing."""

    def __init__(self) -> None:
        self.snapshots: dict[int, Snapshot | None] = {7: BUSY, 8: BUSY}
        self.status = 200
        self.is_away = False
        self.asked = 0
        self.valid = {""}  # tickets
        self.history: dict[str, list[int]] = {"requests_in_flight": [], "checked_out": []}

    async def watch(self, page) -> None:
        await page.route("**/api/v1/pool", self.answer)
        await page.route("**/api/v1/pool/history", self.answer)

    async def answer(self, route) -> None:
        is_history = route.request.url.endswith("/history")
        self.asked += not is_history
        if route.request.headers.get("staccato-ticket", "") not in self.valid:
            await route.fulfill(status=401, json={"detail": "not valid any more"})
            return
        if self.is_away:
            await route.abort()
            return
        page = PoolPage.of(next(iter(self.snapshots)), self.snapshots).as_json()
        problem = {"detail": "nothing is open"}
        body = (self.history if is_history else page) if self.status == 200 else problem
        await route.fulfill(status=self.status, json=body)


@pytest_asyncio.fixture(loop_scope="session")
async def pool(visitor):
    made = Pool()
    await visitor.page.clock.install()  # the test's own seconds
    await made.watch(visitor.page)
    await visitor.open(PAGE)
    await visitor.page.locator(".headline", has_text="50 in flight").wait_for()
    return made


async def a_second(page) -> None:
    async with page.expect_request("**/api/v1/pool"):
        await page.clock.run_for(1_000)


async def rows(page) -> list[list[str]]:
    return await page.locator("[data-processes] tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


async def test_the_promise_is_seen(visitor, pool):
    page = visitor.page
    headline = await page.locator(".headline").inner_text()
    assert " ".join(headline.split()) == "50 in flight 0 connections checked out"
    assert await page.title() == "50 in flight · 0 checked out – Staccato"
    for _ in range(3):
        await a_second(page)
    assert "50 in flight, 0 connections checked out" in await page.text_content("#summary")
    flight, out = ({y for _x, y in line} for line in await drawn(page))
    assert (flight, out) == ({2}, {98}), "one line is at the top, the other at 0"
    assert visitor.faults == []


async def drawn(page) -> list[list[tuple[float, ...]]]:
    """The points of each line."""
    paths = await page.locator("[data-line]").evaluate_all(
        "all => all.map(each => each.getAttribute('d'))"
    )
    points = [path[1:].replace("M", "L").split("L") for path in paths]
    return [[tuple(map(float, point.split())) for point in line] for line in points]


async def test_the_lines_begin_two_minutes_before_the_tab_was_opened_or_seen_again(visitor, pool):
    page = visitor.page
    pool.history = {"requests_in_flight": [*[80] * 60, *[50] * 60], "checked_out": [0] * 120}
    for _ in range(2):  # also after a time in which nobody looked
        await page.evaluate(BECOME_HIDDEN, True)
        async with page.expect_request("**/api/v1/pool"):
            await page.evaluate(BECOME_HIDDEN, False)
        await page.get_by_text("50 to 80 in flight").wait_for()
        flight, out = await drawn(page)
        assert flight[0][0] <= 1
        assert flight[-1][0] > 119
        assert len(flight) == len(out) >= 120
        assert await page.text_content("[data-most]") == "80"
        await page.clock.run_for(30_000)
    assert visitor.faults == []


async def test_trouble_of_one_process_is_named_in_its_row(visitor, pool):
    pool.snapshots = {7: TROUBLED, 9: None}
    await a_second(visitor.page)
    await visitor.page.locator("td", has_text="draining").wait_for()
    assert await rows(visitor.page) == [
        [
            "7",
            "draining",
            "25, at most 31",
            "25",
            "0 of 10, at most 2",
            "7, in memory only: 2",
            "anthropic",
        ],
        ["8", "ended", "–", "–", "–", "–", "–"],
        ["9", "no answer", "–", "–", "–", "–", "–"],
    ]


async def test_a_service_that_goes_away_is_missed_and_found_again(visitor, pool):
    page, lost = visitor.page, visitor.page.locator("[data-lost]")
    assert await lost.is_hidden()
    pool.is_away = True
    await a_second(page)
    await page.get_by_text("No answer since").wait_for()
    since = await lost.inner_text()
    assert "can’t be reached" in since
    await a_second(page)
    assert await lost.inner_text() == since, "it says since when, not how long"
    pool.is_away, pool.status = False, 503
    await a_second(page)
    await page.get_by_text("nothing is open").wait_for()
    pool.status = 200
    await a_second(page)
    await lost.wait_for(state="hidden")


async def test_a_tab_gets_tickets_until_its_visitor_is_logged_out(visitor):
    page, pool = visitor.page, Pool()
    given = ["old", "new", ""]

    async def give(route) -> None:
        html = await (await route.fetch()).text()
        await route.fulfill(body=html.replace('data-ticket=""', f'data-ticket="{given.pop(0)}"'))

    pool.valid = {"new"}
    await page.clock.install()
    await pool.watch(page)
    await page.route(f"**{PAGE}", give)
    await visitor.open(PAGE)
    await page.locator(".headline", has_text="50 in flight").wait_for()
    assert given == [""]
    pool.valid = {"another"}
    await a_second(page)
    await page.get_by_text("You are logged out").wait_for()
    assert await page.get_by_text("Log in again").get_attribute("href") == visitor.url + PAGE
    asked = pool.asked
    await page.clock.run_for(60_000)
    assert pool.asked == asked, "it asks no more"


async def test_a_hidden_tab_asks_nothing(visitor, pool):
    page = visitor.page
    await page.evaluate(BECOME_HIDDEN, True)
    asked = pool.asked
    await page.clock.run_for(60_000)
    assert pool.asked == asked
    async with page.expect_request("**/api/v1/pool"):
        await page.evaluate(BECOME_HIDDEN, False)


async def call_for(seconds: float, port: int) -> None:
    async with asyncio.timeout(seconds):
        while True:
            assert (await http.generate(port)).status == 200


async def test_fifty_in_flight_are_in_the_pictures_of_the_readme(visitor, served, tmp_path):
    """`make screenshots` names docs/ as their place, and waits for two minutes of lines."""
    page, provider = visitor.page, served.provider
    folder = os.environ.get("STACCATO_SCREENSHOTS")
    provider.release.clear()
    await page.set_viewport_size({"width": 1400, "height": 655})
    await visitor.open(PAGE)
    calls = [asyncio.create_task(http.generate(served.port)) for _ in range(50)]
    try:
        await provider.until(lambda: provider.waiting == 50, "50 calls")
        await page.locator(".headline", has_text="50 in flight").wait_for()
        await page.locator(".headline", has_text="0 connections checked out").wait_for()
    finally:
        provider.release.set()
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
    if folder:
        answer = provider.behave

        async def slowly(exchange):
            await asyncio.sleep(random.uniform(2, 7))
            await answer(exchange)

        provider.behave = slowly
        calls = []
        for _ in range(50):
            calls.append(asyncio.create_task(call_for(140, served.port)))
            await asyncio.sleep(random.expovariate(2))
        await asyncio.sleep(105)
    await page.screenshot(path=Path(folder or tmp_path) / "live.png")
    if folder:
        provider.behave = answer
        await asyncio.gather(*calls, return_exceptions=True)


async def test_it_is_whole_on_a_phone_in_the_dark_and_under_a_strict_policy(boss):
    await boss.page.emulate_media(color_scheme="dark")
    await boss.page.set_viewport_size(PHONE)
    await boss.open(PAGE)
    await boss.page.locator("[data-processes] tr").first.wait_for()
    assert await boss.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert boss.faults == []
