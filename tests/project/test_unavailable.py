"""A page is 503, as any other request is, while the database is away or not migrated."""

from __future__ import annotations

import logging

import psycopg
import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError, ProgrammingError
from django.test import AsyncClient

from generation import conf

AWAY = OperationalError("connection refused\n\tIs the server running?")
NOT_MIGRATED = ProgrammingError("relation does not exist")
NOT_MIGRATED.__cause__ = psycopg.errors.UndefinedTable()
PATHS = ("/", "/admin/", "/admin/generation/generationlog/dashboard/")


# Of the API, for those who have a session: an operator looks at them first in an outage.
OPERATORS = ("live", "pool", "pool/history", "docs", "openapi.json")


@pytest.fixture
def lose_sessions(monkeypatch, settings):
    """Has each look for a session raise the error."""

    def lose(error: Exception) -> AsyncClient:
        def load(_store):
            raise error

        async def aload(store):
            load(store)

        monkeypatch.setattr(SessionStore, "load", load)
        monkeypatch.setattr(SessionStore, "aload", aload)
        browser = AsyncClient(raise_request_exception=False)
        browser.cookies[settings.SESSION_COOKIE_NAME] = "x" * 32
        return browser

    return lose


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "sentence"),
    [(AWAY, "The database does not answer now"), (NOT_MIGRATED, "Run `manage.py migrate`")],
    ids=["away", "not migrated"],
)
async def test_a_page_without_its_tables_is_503_with_a_sentence_and_no_traceback(
    lose_sessions, error, sentence, path, caplog
):
    browser = lose_sessions(error)
    with caplog.at_level(logging.INFO, logger="project.unavailable"):
        response = await browser.get(path)
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert sentence in response.content.decode()
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("path", [*(f"/api/v1/{each}" for each in OPERATORS), "/metrics"])
async def test_a_session_that_cannot_be_read_is_no_bug(
    runtime, settings, lose_sessions, path, caplog
):
    staff = {f"{page}_ACCESS": "staff" for page in ("POOL", "DOCS", "METRICS")}
    runtime.settings = conf.parse({**settings.STACCATO, **staff})
    response = await lose_sessions(AWAY).get(path)
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert response.json()["type"].endswith("database-unavailable")
    assert not any(record.exc_info for record in caplog.records)
