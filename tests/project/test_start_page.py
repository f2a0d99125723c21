"""The page at `/`."""

from __future__ import annotations

import re

import pytest
from django.test import AsyncClient
from django.urls import resolve

from generation import conf
from tests.support.in_process import in_process_client


@pytest.fixture
def configured(monkeypatch):
    """Set STACCATO for one test: `configured(POOL_ACCESS="off")`."""

    def configure(**values):
        monkeypatch.setattr(conf, "load", lambda: conf.parse(values))

    return configure


async def page(host: str = "localhost") -> str:
    async with in_process_client(host) as client:
        response = await client.get("/")
    assert response.status_code == 200
    return response.text


def links(html: str) -> list[str]:
    return re.findall(r'<a href="([^"]+)"', html)


# No database is marked: a query would fail.
async def test_it_needs_no_database():
    assert "holds no database connection" in await page()


async def test_every_link_leads_somewhere():
    found = links(await page())
    assert {"api/v1/docs", "api/v1/live", "api/v1/pool", "metrics", "readyz"} <= set(found)
    for link in found:
        match = resolve(link if link.startswith("/") else f"/{link}")
        assert match.url_name != "api-not-found"


async def test_what_is_switched_off_is_not_linked(configured):
    configured(POOL_ACCESS="off", METRICS_ACCESS="off")
    assert not {"api/v1/live", "api/v1/pool", "metrics"} & set(links(await page()))


@pytest.mark.parametrize(
    ("host", "curl"),
    [
        ("127.0.0.1:8000", "curl -X POST http://127.0.0.1:8000/api/v1/generate/1"),
        ("[::1]:8000", "curl -X POST &#x27;http://[::1]:8000/api/v1/generate/1&#x27;"),
    ],
)
async def test_the_curl_line_calls_the_host_that_was_asked(settings, host, curl):
    settings.ALLOWED_HOSTS = ["127.0.0.1", "[::1]"]
    assert f"<code>{curl}</code>" in await page(host=host)


async def test_the_curl_line_names_a_route():
    assert resolve("/api/v1/generate/1").url_name == "generate"


@pytest.mark.parametrize(
    ("values", "provider"),
    [
        ({}, "simulated"),
        ({"ANTHROPIC_API_KEY": "a-secret"}, "anthropic"),
        ({"OPENAI_API_KEY": "a-secret"}, "openai"),
    ],
)
async def test_it_names_the_provider_and_no_key(configured, values, provider):
    configured(**values)
    html = await page()
    assert f"<strong>{provider}</strong>" in html
    assert "a-secret" not in html


async def test_it_loads_nothing_from_elsewhere():
    html = await page()
    assert "<script" in html
    assert "<style" not in html
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)
    assert "url(" not in html


async def test_a_stranger_may_try_it_only_while_debug_is_on(settings):
    settings.DEBUG = False
    assert "<form" not in await page()
    settings.DEBUG = True
    assert 'action="/api/v1/generate/1" data-ticket=' in await page()


async def test_who_may_not_see_the_pool_is_not_shown_it(configured):
    assert "data-pool=" in await page()
    configured(POOL_ACCESS="staff")
    html = await page()
    assert "<form" in html
    assert "data-pool=" not in html


async def test_only_reading_is_allowed():
    assert (await AsyncClient().post("/")).status_code == 405


@pytest.mark.parametrize("path", ["/", "/api/v1/docs"])
async def test_a_page_is_as_wide_as_a_phone(runtime, path):
    # Without it a phone draws the page 980 pixels wide, and small.
    answer = await AsyncClient().get(path)
    assert '<meta name="viewport" content="width=device-width' in answer.content.decode()
