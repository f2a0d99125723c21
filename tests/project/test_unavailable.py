"""A page is 503, as any other request is, while the database is away or not migrated."""

from __future__ import annotations

import logging

import psycopg
import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError, ProgrammingError
from django.test import AsyncClient

AWAY = OperationalError("connection refused\n\tIs the server running?")
NOT_MIGRATED = ProgrammingError("relation does not exist")
NOT_MIGRATED.__cause__ = psycopg.errors.UndefinedTable()
PATHS = ("/", "/admin/", "/admin/generation/generationlog/dashboard/")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "sentence"),
    [(AWAY, "The database does not answer now"), (NOT_MIGRATED, "Run `manage.py migrate`")],
    ids=["away", "not migrated"],
)
async def test_a_page_without_its_tables_is_503_with_a_sentence_and_no_traceback(
    monkeypatch, error, sentence, path, caplog
):
    def load(_store):
        raise error

    async def aload(store):
        load(store)

    monkeypatch.setattr(SessionStore, "load", load)
    monkeypatch.setattr(SessionStore, "aload", aload)
    browser = AsyncClient(raise_request_exception=False)
    browser.cookies[settings.SESSION_COOKIE_NAME] = "x" * 32
    with caplog.at_level(logging.INFO, logger="project.unavailable"):
        response = await browser.get(path)
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert sentence in response.content.decode()
    assert not any(record.exc_info for record in caplog.records)
