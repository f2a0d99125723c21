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
    return logs.throttled_logger(request.node.name)


def test_a_repeated_message_is_logged_once_per_ten_seconds(logger, clock, caplog):
    for _ in range(300):
        for state in ("away", "starting up"):
            logger.warning("the database is %s", state)
        clock[0] += 0.1
    assert len(caplog.messages) == 2 * 30 / logs.THROTTLE_S


def test_a_new_message_is_logged_at_once(logger, caplog):
    for number in range(100):
        logger.warning("row %d is refused", number)
    assert len(caplog.messages) == 100
    assert len(logger.filters[0]._quiet_until) == logs.REMEMBERED


def test_no_traceback_is_dropped(logger, caplog):
    for fault in (ValueError(), TypeError()):
        logger.error("a bug", exc_info=fault)
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, TypeError]


def test_a_message_is_one_line_and_its_end_names_the_request():
    formatter = logs.LineFormatter("{levelname}: {message}", style="{")
    record = logging.makeLogRecord({"msg": "failed:\n%s", "args": ("why",), "levelname": "INFO"})
    assert formatter.format(record) == "INFO: failed: why"
    token = logs.request_id.set("mine-7")
    try:
        assert formatter.format(record) == "INFO: failed: why [request mine-7]"
    finally:
        logs.request_id.reset(token)
