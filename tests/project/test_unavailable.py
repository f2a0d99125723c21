"""A page that needs the database while it is away is 503, as any other request is."""

from __future__ import annotations

import logging

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import AsyncClient


@pytest.fixture
def away(monkeypatch):
    def load(_store):
        raise OperationalError("connection refused\n\tIs the server running?")

    async def aload(store):
        load(store)

    monkeypatch.setattr(SessionStore, "load", load)
    monkeypatch.setattr(SessionStore, "aload", aload)


@pytest.mark.parametrize("path", ["/", "/admin/", "/admin/generation/generationlog/dashboard/"])
async def test_a_page_without_a_database_is_503_with_a_sentence_and_no_traceback(
    away, path, caplog
):
    browser = AsyncClient(raise_request_exception=False)
    browser.cookies[settings.SESSION_COOKIE_NAME] = "x" * 32
    with caplog.at_level(logging.INFO, logger="project.unavailable"):
        response = await browser.get(path)
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert "The database does not answer now" in response.content.decode()
    assert not any(record.exc_info for record in caplog.records)
