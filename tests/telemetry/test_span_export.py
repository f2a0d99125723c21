"""Spans leave in batches once their rows are safe, and a collector that is away costs no answer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from generation import conf
from generation.errors import DatabaseUnavailable
from generation.llm.posting import Post
from generation.llm.transport import Transport
from generation.models import ForgottenUser, GenerationLog
from generation.telemetry import metrics, span_export
from generation.telemetry.span_export import SpanExport
from tests.support import http
from tests.support.provider import Provider, hangs, says
from tests.support.rows import a_request, make_row
from tests.support.waiting import HANG_S

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-0"
TAKEN = says(200, b'{"partialSuccess":{}}')
GONE = "http://127.0.0.1:9"
TEXTS = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(span_export, "LINGER_S", 0.01)
    monkeypatch.setattr(span_export, "PAUSES_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(span_export, "CLOSE_S", 0.3)


@pytest.fixture
async def collector():
    async with Provider(TAKEN).serve() as provider:
        yield provider


async def none_forgotten(_users):
    return set()


@contextlib.asynccontextmanager
async def exporting(url: str, find_forgotten=none_forgotten, timeout_s=10.0, **settings: str):
    parsed = conf.parse({"OTEL_EXPORTER_OTLP_ENDPOINT": url, **settings})
    async with Transport(connect_timeout=HANG_S) as transport:
        post = Post("the collector", url + span_export.PATH, transport, timeout_s=timeout_s)
        export = SpanExport(parsed, "0.1.0", post, find_forgotten)
        async with export.running():
            yield export


def add(export: SpanExport, count: int = 1, **changes) -> list:
    rows = [make_row(**changes).row for _ in range(count)]
    for row in rows:
        export.add(row, a_request())
    return rows


def spans(collector: Provider) -> list[dict]:
    return [
        span
        for request in collector.requests
        for of_resource in request.json["resourceSpans"]
        for of_scope in of_resource["scopeSpans"]
        for span in of_scope["spans"]
    ]


@pytest.fixture
def lost():
    """How many generations were dropped since the test began."""
    dropped = metrics.EXPORT_DROPPED.labels("otlp")
    before = dropped._value.get()
    return lambda: dropped._value.get() - before


# --- as a user has them -----------------------------------------------------------------------


async def test_a_stored_generation_reaches_the_collector_in_its_callers_trace(here, collector):
    headers = "api-key=a%2Cb,x-team=llm"
    async with here(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS=headers,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    ) as service:
        for flag in "10":
            parent = [("traceparent", f"{TRACEPARENT}{flag}")]
            assert (await http.generate(service.port, headers=parent)).status == 200
        await collector.until(lambda: bool(collector.requests), "spans")
    (request,) = collector.requests
    assert request.path == "/v1/traces"
    sent = ("content-type", "api-key", "x-team")
    assert [request.headers[name] for name in sent] == ["application/json", "a,b", "llm"]
    described = request.json["resourceSpans"][0]["resource"]["attributes"]
    assert {each["key"]: each["value"]["stringValue"] for each in described} == {
        "deployment.environment.name": "test",
        "service.name": "staccato",
        "service.version": "0.1.0",
    }
    whole, attempt = spans(collector)  # the other's caller records no trace
    row = await GenerationLog.objects.order_by("id").afirst()
    assert (whole["traceId"], whole["parentSpanId"]) == (TRACE, "b7ad6b7169203331")
    assert (whole["spanId"], attempt["parentSpanId"]) == (row.id.hex[16:], row.id.hex[16:])


async def test_a_collector_that_is_away_costs_no_caller_an_answer(here, lost):
    async with here(OTEL_EXPORTER_OTLP_ENDPOINT=GONE) as service:
        answers = [await http.generate(service.port) for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    assert await GenerationLog.objects.acount() == 3
    assert lost() == 3


async def test_texts_of_a_forgotten_user_do_not_leave(here, collector):
    await ForgottenUser.objects.acreate(user_id=2)
    asked = {"messages": [{"role": "user", "content": "a canary"}]}
    async with here(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **TEXTS) as service:
        for user in (1, 2):
            assert (await http.generate(service.port, user, asked)).status == 200
        await collector.until(lambda: len(spans(collector)) == 4, "spans")
    with_text = {attribute_of(each, "user.id"): "canary" in str(each) for each in wholes(collector)}
    assert with_text == {"1": True, "2": False}


def wholes(collector: Provider) -> list[dict]:
    return [span for span in spans(collector) if span["name"].startswith("chat")]


def attribute_of(span: dict, name: str):
    (value,) = [each["value"] for each in span["attributes"] if each["key"] == name]
    return next(iter(value.values()))


# --- the queue --------------------------------------------------------------------------------


async def test_many_generations_are_one_request(collector, lost):
    async with exporting(collector.url) as export:
        add(export, 700)
        await collector.until(lambda: len(wholes(collector)) == 700, "spans")
    assert [len(wholes_of(request)) for request in collector.requests] == [512, 188]
    assert collector.accepted == 1, "on one connection"
    assert lost() == 0


def wholes_of(request) -> list[dict]:
    found = request.json["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return [span for span in found if span["name"].startswith("chat")]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_collector_that_is_busy_is_asked_again(collector, lost, status):
    collector.script = [says(status, b"", retry_after="0")]
    async with exporting(collector.url) as export:
        add(export)
        await collector.until(lambda: len(collector.requests) == 2, "another try")
    first, second = collector.requests
    assert first.body == second.body
    assert lost() == 0


@pytest.mark.parametrize("status", [400, 401, 413, 500])
async def test_what_a_collector_refuses_is_dropped_and_counted(collector, lost, status):
    collector.script = [says(status, b"")]
    async with exporting(collector.url) as export:
        add(export, 3)
        await collector.until(lambda: lost() == 3, "the drop")
        add(export)
        await collector.until(lambda: len(collector.requests) == 2, "what comes after")
    assert len(wholes_of(collector.requests[1])) == 1


async def test_what_a_collector_says_of_spans_that_it_refuses_is_logged(collector, caplog):
    collector.behave = says(200, {"partialSuccess": {"rejectedSpans": 1, "errorMessage": "why"}})
    async with exporting(collector.url) as export:
        add(export)
    assert "refuses spans" in caplog.text
    assert "why" in caplog.text


async def test_a_collector_that_stays_busy_or_silent_is_given_up(collector, lost):
    collector.behave = says(503, b"")
    collector.script = [hangs]
    async with exporting(collector.url, timeout_s=0.05) as export:
        add(export, 3)
        await collector.until(lambda: lost() == 3, "the drop")
    assert len(collector.requests) == len(span_export.PAUSES_S)


async def test_what_the_queue_has_no_room_for_is_dropped_and_counted(collector, lost, monkeypatch):
    monkeypatch.setattr(span_export, "QUEUE", 5)
    collector.release.clear()
    async with exporting(collector.url) as export:
        add(export, 8)
        assert lost() == 3
        await collector.until(lambda: collector.waiting == 1, "the first batch")
        collector.release.set()
        monkeypatch.setattr(span_export, "QUEUE_BYTES", 1)
        add(export, 3)
        assert lost() == 5
        await collector.until(lambda: len(wholes(collector)) == 6, "the rest")


async def test_the_end_of_the_process_sends_what_is_queued(collector, lost, monkeypatch):
    monkeypatch.setattr(span_export, "LINGER_S", HANG_S)
    monkeypatch.setattr(span_export, "CLOSE_S", HANG_S)
    async with exporting(collector.url) as export:
        add(export, 600)
    assert len(wholes(collector)) == 600
    assert lost() == 0


@pytest.mark.parametrize("behave", [hangs, says(503, b"", retry_after="3600")])
async def test_a_collector_does_not_hold_up_the_end_of_the_process(collector, lost, behave):
    collector.behave = behave
    waits = exporting(collector.url, timeout_s=3600)
    async with asyncio.timeout(HANG_S), waits as export:
        add(export, 600)
        await collector.until(lambda: collector.calls == 1, "the first batch")
    assert lost() == 600


async def test_nobody_knows_who_is_forgotten_so_no_text_leaves(collector, lost):
    async def away(_users):
        raise DatabaseUnavailable("away", retry_after=1)

    async with exporting(collector.url, away, **TEXTS) as export:
        add(export, prompt="a canary")
        await collector.until(lambda: bool(collector.requests), "spans")
    assert b"gen_ai.usage" in collector.requests[0].body
    assert b"canary" not in collector.requests[0].body
    assert lost() == 0


async def test_without_an_address_nothing_is_exported(runtime):
    assert runtime.span_export is None
