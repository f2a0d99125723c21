"""A real browser: Debian's Chromium, headless, with a profile of its own."""

from __future__ import annotations

import os
import shutil

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from playwright.async_api import async_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
async def browser():
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        assert not os.environ.get("CI"), "CI has a browser; `.ci/run` installs it"
        pytest.skip("there is no Chromium here: `apt-get install chromium`")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium, headless=True, args=FLAGS
        )
        yield opened
        await opened.close()


class Watched:
    """A page, and whatever ran or was stopped on it."""

    def __init__(self, page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        self.dialogs: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", self._dismiss)

    def _note(self, message) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    async def _dismiss(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        await dialog.dismiss()

    async def open(self, path: str) -> None:
        await self.page.goto(self.url + path, wait_until="networkidle")


@pytest.fixture
async def watched(serve, orm, browser):
    """Logged in to the admin of a service in production's ways, but for TLS."""
    users = get_user_model()
    await sync_to_async(users.objects.create_superuser)(
        "admin", "admin@example.com", password="a right one 7", id=50
    )
    async with serve() as service:
        url = f"http://127.0.0.1:{service.port}"
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        found = Watched(await context.new_page(), url)
        await found.open("/admin/login/")
        await found.page.fill("[name=username]", "admin")
        await found.page.fill("[name=password]", "a right one 7")
        await found.page.press("[name=password]", "Enter")
        await found.page.wait_for_url("**/admin/")
        yield found
        await context.close()
