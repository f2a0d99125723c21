"""The log of a long outage stays readable."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from decimal import Decimal

import pytest

from generation.records import Trace
from generation.telemetry import logs
from generation.uuid7 import uuid7
from tests.support.rows import a_request, make_row


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


def as_json(**record) -> dict:
    return json.loads(logs.JsonFormatter().format(logging.makeLogRecord(record)))


def test_a_message_is_an_object_in_one_line_whatever_is_in_it():
    record = logging.makeLogRecord({"msg": "two\n%s", "args": ("lines",)})
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines"
    assert as_json(msg="half a pair: \udc80")["message"] == "half a pair: \udc80"
    assert as_json(msg="%s", args=(object,), figures={"cost": Decimal(1)})["cost"] == "1"


def test_an_object_has_the_traceback():
    fault = (ValueError, ValueError("why"), None)
    assert as_json(msg="a bug", exc_info=fault)["exc"] == "ValueError: why"


def test_what_a_generation_logs_names_its_row_and_the_callers_trace():
    row_id = uuid7()
    trace = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    request = replace(a_request(), trace=trace)
    for asked, trace_id in ((request, trace.trace_id), (a_request(), row_id.hex)):
        token = logs.subject.set(logs.Subject(row_id, asked))
        try:
            line = as_json(msg="m")
        finally:
            logs.subject.reset(token)
        assert (line["log_id"], line["trace_id"], line["user_id"]) == (row_id.hex, trace_id, 1)
        assert (line["request_id"], line["span_id"]) == ("r", row_id.hex[16:])


def test_no_generation_has_a_line_unless_the_project_gives_the_logger_a_level(caplog):
    row = make_row().row
    logs.log_each(row)
    assert caplog.records == []
    with caplog.at_level(logging.INFO, logger=logs.EACH):
        logs.log_each(row)
    assert caplog.messages == ["succeeded anthropic:claude-test in 20 ms"]
