"""A real browser: Debian's Chromium, headless, with a profile of its own."""

from __future__ import annotations

import os
import shutil

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from playwright.async_api import async_playwright

from tests.support.admin import session_of

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
async def visitor(serve, users, orm, browser):
    """A stranger at the service."""
    async with serve() as service:
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        yield Watched(await context.new_page(), f"http://127.0.0.1:{service.port}")
        await context.close()


@pytest.fixture
async def watched(visitor):
    """The same, with a session of the admin's. To log in costs a second, so one test does."""
    admin = await sync_to_async(get_user_model().objects.create_superuser)("admin", id=50)
    cookie = (await session_of(admin))["Cookie"].partition("=")
    await visitor.page.context.add_cookies(
        [{"name": cookie[0], "value": cookie[2], "url": visitor.url}]
    )
    return visitor
