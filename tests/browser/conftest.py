"""A real browser: Debian's Chromium, headless, with a profile of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from playwright.async_api import async_playwright

from tests.support import service
from tests.support.admin import session_of
from tests.support.dialects import AnthropicDialect
from tests.support.provider import Provider, says
from tests.support.waiting import HANG_S

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


# All tests here share a loop, since they share what lives in it: a browser takes seconds of a core
# to start, and a service one more. Both end with the last of them.
shared = pytest_asyncio.fixture(scope="package", loop_scope="session")


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@shared
async def browser():
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        assert not os.environ.get("CI"), "CI has a browser; `.ci/run` installs it"
        pytest.skip("there is no Chromium here: `apt-get install chromium`")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium, headless=True, args=FLAGS
        )
        # One context keeps the style sheets and scripts that each page asks for.
        context = await opened.new_context(reduced_motion="reduce")
        context.set_default_timeout(HANG_S * 1000)
        yield context
        await opened.close()


@pytest.fixture(scope="package")
def nothing_left(emptied_after):
    with emptied_after():
        yield


@shared
async def served(postgres_url, nothing_left):
    """The service, with an LLM that answers; `provider` is that."""
    async with (
        Provider(says(200, AnthropicDialect().answer())).serve() as provider,
        service.running(
            postgres_url,
            DJANGO_SETTINGS_MODULE="tests.browser.settings",
            LLM_PROVIDER="anthropic",
            ANTHROPIC_API_KEY="test-key",
            ANTHROPIC_BASE_URL=provider.url,
        ) as opened,
    ):
        opened.provider = provider
        yield opened


@shared
async def plainly_served(postgres_url):
    """The same without Unfold."""
    plain = "tests.browser.plain"
    async with service.running(postgres_url, DJANGO_SETTINGS_MODULE=plain) as opened:
        yield opened


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

    async def log_in_as_admin(self) -> None:
        """Without the form, which takes a second."""
        admin = await get_user_model().objects.aget(username="admin")
        name, _, value = (await session_of(admin))["Cookie"].partition("=")
        await self.page.context.add_cookies([{"name": name, "value": value, "url": self.url}])

    async def open(self, path: str) -> None:
        """The scripts of the page have run when it has loaded."""
        await self.page.goto(self.url + path)

    @contextlib.asynccontextmanager
    async def leaving(self):
        """What is done in the block leads to another page, which is loaded after it."""
        async with self.page.expect_event("load"):
            yield


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(users, orm, browser, served):
    """A stranger at the service."""
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1400, "height": 900})
    yield Watched(page, f"http://127.0.0.1:{served.port}")
    await page.close()
    await browser.clear_cookies()


@pytest_asyncio.fixture(loop_scope="session")
async def watched(visitor):
    """The same, with a session of the admin's. To log in costs a second, so one test does."""
    await sync_to_async(get_user_model().objects.create_superuser)("admin", id=50)
    await visitor.log_in_as_admin()
    return visitor


@pytest_asyncio.fixture(loop_scope="session")
async def boss(users, orm, browser, plainly_served):
    """With a session of the admin's, where that has Django's own look."""
    page = await browser.new_page()
    opened = Watched(page, f"http://127.0.0.1:{plainly_served.port}")
    await sync_to_async(get_user_model().objects.create_superuser)("admin", id=50)
    await opened.log_in_as_admin()
    yield opened
    await page.close()
    await browser.clear_cookies()
