"""The log of a long outage stays readable."""

from __future__ import annotations

import logging

import pytest

from generation import logs


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
        logger.warning("the database is %s", "away")
        clock[0] += 0.1
    assert len(caplog.messages) == 30 / logs.AGAIN_S


def test_what_is_new_is_said_at_once(logger, caplog):
    for state in ("away", "starting up", "away"):
        logger.warning("the database is %s", state)
    assert caplog.messages == [
        "the database is away",
        "the database is starting up",
        "the database is away",
    ]
