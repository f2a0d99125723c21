"""MeasuredPool overrides a private method of SQLAlchemy's: these fail where that changes."""

from __future__ import annotations

import pytest
from django.db import connections
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool

from generation import conf
from generation.database import pool
from generation.database.engine import Database

CHANGED = "SQLAlchemy has changed what MeasuredPool overrides; see generation/database/pool.py: "


@pytest.fixture
async def database(committed):
    settings = conf.parse({"DB_POOL_SIZE": 1})
    async with Database.open(settings, connections.settings["default"], strict=True) as opened:
        yield opened


def test_sqlalchemys_pool_has_the_method_that_is_overridden():
    assert "_do_get" in vars(AsyncAdaptedQueuePool.__mro__[1]) | vars(AsyncAdaptedQueuePool), (
        CHANGED + "there is no `_do_get` any more, so no wait is measured"
    )


async def test_each_loan_passes_through_the_override(database):
    for _ in range(3):
        await database.run(text("SELECT 1"))
    assert database.pool.waits.count == 3, CHANGED + "`_do_get` is not called for each loan"


async def test_a_connection_is_tested_after_a_second_of_rest_and_not_before(database, monkeypatch):
    pings = []
    monkeypatch.setattr(
        database.engine.sync_engine.dialect, "do_ping", lambda link: pings.append(link) or True
    )
    for _ in range(3):
        await database.run(text("SELECT 1"))
    assert pings == [], CHANGED + "`fresh` keeps nothing from being pinged, at a statement's cost"
    monkeypatch.setattr(pool, "PING_AFTER_S", 0.0)
    await database.run(text("SELECT 1"))
    assert len(pings) == 1
