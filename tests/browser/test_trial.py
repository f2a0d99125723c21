"""The start page's trial in a real browser, with a provider that the test holds."""

from __future__ import annotations

import asyncio

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model

from generation.models import GenerationLog
from tests.support.dialects import AnthropicDialect
from tests.support.provider import says, streams

DIALECT = AnthropicDialect()


def state(page, words: str):
    return page.locator("[data-state]", has_text=words).wait_for()


async def test_the_answer_is_seen_while_it_comes_and_beside_it_the_pool(visitor, served):
    page, rest = visitor.page, asyncio.Event()
    pieces = DIALECT.stream("Because of <b>scattering</b>", ", mostly.")
    served.provider.script[:] = [streams(*pieces[:3], rest, *pieces[3:])]
    await page.set_viewport_size({"width": 390, "height": 844})
    await visitor.open("/")
    await page.click("[type=submit]")
    await page.locator("[data-answer]", has_text="Because of").wait_for()
    await page.locator(".flight", has_text="1 in flight").wait_for()
    assert (await page.locator(".out b").inner_text()) == "0"
    rest.set()
    await state(page, "See its row")
    text = await page.locator("[data-answer]").inner_text()
    assert text == "Because of <b>scattering</b>, mostly.", "the model's words are text"
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    row = await page.get_by_text("See its row").get_attribute("href")
    assert await GenerationLog.objects.filter(pk=row.split("/")[-3], status="succeeded").aexists()
    assert visitor.faults == []


async def test_stop_ends_the_call_at_the_provider_and_its_row_says_so(visitor, served):
    page, provider = visitor.page, served.provider
    hung_up = provider.hung_up
    provider.script[:] = [streams(*DIALECT.stream("Because")[:3], asyncio.Event())]
    await visitor.open("/")
    await page.click("[type=submit]")
    await page.locator("[data-answer]", has_text="Because").wait_for()
    await page.click("[data-stop]")
    await state(page, "Stopped")
    await provider.until(lambda: provider.hung_up > hung_up, "the end of the call")
    await served.until_pool(lambda pool: not pool["requests_in_flight"], "no request in flight")
    assert await GenerationLog.objects.filter(status="cancelled").acount() == 1


async def test_an_error_is_a_sentence(visitor, served):
    page, provider = visitor.page, served.provider
    provider.script[:] = [says(400, DIALECT.error("caller"))]
    await visitor.open("/")
    await page.click("[type=submit]")
    await state(page, ".")
    said = await page.locator("[data-state]").inner_text()
    assert said[0].isupper(), said
    await sync_to_async(get_user_model().objects.filter(pk=1).update)(is_active=False)
    await page.click("[type=submit]")
    await state(page, "User 1 does not exist or has no prompt.")
    await page.route("**/api/v1/generate/1", lambda route: route.abort())
    await page.click("[type=submit]")
    await state(page, "The service can’t be reached.")
