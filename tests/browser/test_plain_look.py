"""The admin's pages in Django's own look: whole on a phone, too, and under a strict policy."""

from __future__ import annotations

import json

from asgiref.sync import sync_to_async

from generation.models import ApiKey, GenerationAccess, Limit, Profile, SavedView, UsageLog
from tests.support.admin import LOGS, NOON, save_log
from tests.support.keys import make_key

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
LEAVES_THE_WINDOW = """() => [...document.querySelectorAll("#content .log-card, #content form")]
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
    .map(each => each.className || each.id)"""


def save_rows() -> list[str]:
    """Returns the addresses of pages that show them."""
    turns = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why? " * 50}]}]}
    logs = [
        save_log(n, status=status, error_type=error, prompt="Tell me about the sky. " * 9)
        for n, (status, error) in enumerate(
            [("succeeded", ""), ("failed", "llm-failed"), ("timed_out", "llm-timed-out")] * 3
        )
    ]
    talk = save_log(20, conversation=json.dumps(turns), metadata={"ticket": "4711"}, max_tokens=9)
    make_key(name="a backend's")
    key = ApiKey.objects.get()
    again = save_log(prompt="Why?", result="Because.", replay_of=talk.pk)
    SavedView.objects.create(owner_id=50, name="All that failed", query="status=failed")
    limit = Limit.objects.create(scope="key", api_key=key, unit="usd", amount=10**9, window="day")
    UsageLog.objects.create(user_id=1, tokens=30, latency_ms=1, created_at=NOON)
    GenerationAccess.objects.create(user_id=50, action="read", rows=1, log_id=talk.pk)
    profile = Profile.objects.get(pk=1)
    pages = [
        *("", "?status=failed&created_at_from_0=2026-01-31", f"{talk.pk}/change/"),
        *(f"{logs[1].pk}/change/", "../profile/", f"../profile/{profile.pk}/change/", "../apikey/"),
        *("../apikey/add/", f"../apikey/{key.pk}/change/", f"../apikey/{key.pk}/revoke/"),
        *("../limit/", f"../limit/{limit.pk}/change/", f"../limit/{limit.pk}/override/"),
        *("../usagelog/", "../generationaccess/", "../maintenance/", "dashboard/", "errors/"),
        "spending/?user=1",
        *("export/choose/?status=failed", "views/", f"{again.pk}/compare/"),
    ]
    return [f"{LOGS}{page}" for page in pages]


async def test_each_page_is_whole_in_djangos_own_look(boss):
    pages = await sync_to_async(save_rows)()
    for look, size in (("light", WIDE), ("dark", PHONE)):
        await boss.page.emulate_media(color_scheme=look)
        await boss.page.set_viewport_size(size)
        for path in pages:
            await boss.open(path)
            assert await boss.page.evaluate(LEAVES_THE_WINDOW) == [], (path, size)
    assert boss.faults == []


async def test_logs_are_narrowed_to_some_hours(boss):
    await sync_to_async(save_rows)()
    await boss.open(f"{LOGS}?status=failed")
    await boss.page.fill("[name=created_at_from_0]", "2026-01-31")
    await boss.page.fill("[name=created_at_from_1]", "11:58")
    async with boss.leaving():
        await boss.page.click("#log-filters button")
    assert await boss.page.locator(".log-rows tbody tr").count() == 1
    assert "status=failed" in boss.page.url
    assert boss.faults == []
