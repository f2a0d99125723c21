"""The middleware names the views that hold a connection while they stream or wait."""

from __future__ import annotations

import pytest
from django.db import connections
from django.test import AsyncClient, Client

from generation.connections import middleware
from generation.telemetry import metrics
from tests.connections import views


@pytest.fixture
def watched(committed, settings, monkeypatch):
    """The views with the middleware, which begins to look before any connection is open."""
    connections.close_all()
    settings.ROOT_URLCONF = views.__name__
    settings.MIDDLEWARE = ["generation.HeldConnectionsMiddleware"]
    monkeypatch.setattr(middleware, "WAIT_S", 0.5)

    async def at_once() -> None: ...

    monkeypatch.setattr(views, "barrier", at_once)
    yield
    connections.close_all()


def counted(doing: str) -> float:
    return metrics.VIEWS_HOLDING.labels(doing)._value.get()


def test_a_stream_that_begins_while_a_connection_is_held_is_counted(watched, caplog):
    before = counted("stream")
    assert Client().get("/streams-holding").getvalue() == b"ab"
    assert counted("stream") == before + 1
    assert "views.streams_holding streams while it holds a connection (default)" in caplog.text


async def test_a_view_that_waits_while_it_holds_one_is_counted(watched, orm, caplog):
    before = counted("wait")
    assert (await AsyncClient().get("/waits-holding")).status_code == 200
    assert counted("wait") == before + 1
    assert "views.waits_holding held a connection" in caplog.text


async def test_a_view_that_gives_it_back_is_not(watched, orm, caplog):
    assert (await AsyncClient().get("/waits-released")).status_code == 200
    assert "held a connection" not in caplog.text


def test_a_slow_query_is_work_and_no_wait(watched, caplog):
    assert Client().get("/sleeps-in-postgres").status_code == 200
    assert "held a connection" not in caplog.text
