"""The log of a long outage stays readable."""

from __future__ import annotations

import logging

import pytest

from generation.telemetry import logs


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def logger(clock, request):
    logger = logging.getLogger(request.node.name)
    logger.addFilter(logs.OncePerWhile())
    return logger


def test_what_is_said_again_and_again_is_said_once_per_while(logger, clock, caplog):
    for _ in range(300):
        for state in ("away", "starting up"):
            logger.warning("the database is %s", state)
        clock[0] += 0.1
    assert len(caplog.messages) == 2 * 30 / logs.AGAIN_S


def test_what_is_new_is_said_at_once(logger, caplog):
    for number in range(100):
        logger.warning("row %d is refused", number)
    assert len(caplog.messages) == 100
    assert len(logger.filters[0]._until) == logs.REMEMBERED


def test_no_traceback_is_held_back(logger, caplog):
    for fault in (ValueError(), TypeError()):
        logger.error("a bug", exc_info=fault)
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, TypeError]
