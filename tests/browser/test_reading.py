"""The log as its visitors see it who may not read texts: on a phone, and in the dark."""

from __future__ import annotations

import contextlib

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from playwright.async_api import TimeoutError as PlaywrightTimeout

from generation import access
from tests.support.admin import ACCESSES, LOGS, save_log, session_of

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
# A row of a list lies within the window: on a phone nobody finds what is to the right of it.
HIDDEN = """() => [...document.querySelectorAll("#result_list .data-row > *, .log-rows tr > *")]
    .filter(cell => cell.getBoundingClientRect().right > innerWidth)
    .map(cell => cell.className)"""
FITS = "document.documentElement.scrollWidth <= innerWidth"
TEXT = "The bridge is closed until Friday."


def make_operator() -> tuple:
    """Who may also export and see the record of accesses; and a log to look at."""
    log = save_log(prompt=TEXT, result=TEXT, error=TEXT, status="failed", error_type="llm-failed")
    person = get_user_model().objects.create_user("visitor", is_staff=True, id=51)
    person.groups.add(Group.objects.get(name="Operators"))
    also = Permission.objects.filter(codename__in=["export", "view_generationaccess"])
    person.user_permissions.add(*also)
    access.record(access.Action.READ, rows=1, log_id=log.pk)
    return person, log


async def test_who_may_not_read_texts_is_told_so(visitor):
    person, log = await sync_to_async(make_operator)()
    cookie = (await session_of(person))["Cookie"].partition("=")
    page = visitor.page
    await page.context.add_cookies([{"name": cookie[0], "value": cookie[2], "url": visitor.url}])
    detail = f"{LOGS}{log.pk}/change/"
    for scheme, path in (("light", LOGS), ("dark", detail), ("dark", ACCESSES)):
        await page.emulate_media(color_scheme=scheme)
        await visitor.open(path)
        for size in (WIDE, PHONE):
            await page.set_viewport_size(size)
            with contextlib.suppress(PlaywrightTimeout):  # the sidebar moves when the window does
                await page.wait_for_function(f"{FITS} && !({HIDDEN})().length")
            assert await page.evaluate(FITS), (path, size)
            assert await page.evaluate(HIDDEN) == [], (path, size)
        assert visitor.faults == [], path
        assert TEXT not in await page.content(), path
        if path == detail:
            assert await page.locator("[data-field=not-shown]").is_visible()
        if path == LOGS:
            assert await page.get_by_text("Export", exact=True).is_visible()
