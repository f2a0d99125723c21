"""A generation as spans: what OTLP and the conventions ask for, and which texts may leave."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from generation.conversation import NO_OPTIONS, Message, Text, ToolUse, dump_blocks
from generation.conversation import dump_conversation as dump
from generation.records import NO_TRACE, Attempt, Trace
from generation.telemetry import spans
from generation.uuid7 import uuid7
from tests.support.rows import make_row

CALLER = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)
ARRIVED = datetime(2026, 11, 28, 3, 4, 5, 678_901, tzinfo=UTC)
ARRIVED_NS = 1_795_835_045_678_901_000
MS = 1_000_000


def exported(row, trace=NO_TRACE, operation="chat", *, content=False) -> list[Span]:
    """What a collector makes of it; strict about each name and type."""
    before, after = spans.resource("shop", "0.1.0", {"deployment.environment.name": "test"})
    body = before + spans.encode(row, trace, operation, content=content) + after
    # In OTLP's JSON ids are hexadecimal, where protobuf's own has base64: the only difference.
    request = Parse(body, ExportTraceServiceRequest())
    (of_resource,) = request.resource_spans
    (of_scope,) = of_resource.scope_spans
    assert attributes(of_resource.resource)["service.name"] == "shop"
    assert (of_scope.scope.name, of_scope.scope.version) == ("staccato", "0.1.0")
    return list(of_scope.spans)


def attributes(of) -> dict[str, Any]:
    found = {}
    for each in of.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        is_list = kind == "array_value"
        found[each.key] = [part.string_value for part in value.values] if is_list else value
    return found


def ids(row, trace=NO_TRACE) -> list[tuple[str, str, str]]:
    listed = json.loads(b"[%s]" % spans.encode(row, trace, "chat", content=False))
    return [(each["traceId"], each["spanId"], each.get("parentSpanId", "")) for each in listed]


def test_a_generation_is_a_client_span_by_the_conventions():
    row = make_row(created_at=ARRIVED, latency_ms=4020, model="claude-test-2026").row
    span, _attempt = exported(row)
    assert (span.name, span.kind) == ("chat claude-test", Span.SPAN_KIND_CLIENT)
    assert span.start_time_unix_nano == ARRIVED_NS
    assert span.end_time_unix_nano == ARRIVED_NS + 4020 * MS
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-test",
        "gen_ai.response.model": "claude-test-2026",
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.cache_creation.input_tokens": 1,
        "staccato.cost_usd": 0.000123456,
        "staccato.log_id": str(row.id),
        "staccato.request_id": "r",
        "staccato.api_key_id": 5,
        "user.id": "1",
    }


def test_a_stream_says_when_its_first_words_came():
    row = make_row(is_streamed=True, first_token_ms=308, latency_ms=4020, llm_latency_ms=4012).row
    found = attributes(exported(row)[0])
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.3)


def test_each_attempt_is_a_child_with_its_own_time_and_outcome():
    attempts = (
        Attempt("openai", "gpt-test", 529, "llm-overloaded", 100, at_ms=2),
        Attempt("anthropic", "claude-test", None, "llm-unreachable", 300, at_ms=950),
    )
    row = make_row(
        created_at=ARRIVED, attempts=attempts, latency_ms=1300, llm_latency_ms=1260,
        status="failed", error_type="llm-unreachable", stop_reason="",
    ).row  # fmt: skip
    whole, first, second = exported(row)
    assert whole.status.code == first.status.code == Status.STATUS_CODE_ERROR
    assert attributes(whole)["error.type"] == "llm-unreachable"
    assert "gen_ai.response.model" not in attributes(whole)
    assert first.start_time_unix_nano == ARRIVED_NS + (40 + 2) * MS
    assert first.end_time_unix_nano == ARRIVED_NS + (40 + 2 + 100) * MS
    assert second.start_time_unix_nano == ARRIVED_NS + (40 + 950) * MS
    assert attributes(first) == {
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-test",
        "http.response.status_code": 529,
        "error.type": "llm-overloaded",
    }
    assert "http.response.status_code" not in attributes(second)
    # What reads operations counts tokens by them, and must count them once.
    assert "gen_ai.operation.name" not in attributes(second)


def test_a_generation_names_who_was_asked_last_and_what_was_asked_of_it():
    asked_first = Attempt("openai", "gpt-test", 529, "llm-overloaded", 100)
    attempts = (asked_first, Attempt("anthropic", "claude-test", 500, "llm-unreachable", 300))
    answered = make_row(attempts=attempts, model="claude-test-2026").row
    failed = make_row(attempts=attempts, status="failed", error_type="llm-unreachable").row
    for row in (answered, failed):
        whole, *_children = exported(row)
        found = attributes(whole)
        assert (found["gen_ai.provider.name"], found["gen_ai.request.model"]) == (
            "anthropic",
            "claude-test",
        ), "a provider beside another one's model: a backend sums what nobody was asked for"
        assert whole.name == "chat claude-test"


def test_no_attempt_outlasts_its_generation():
    # It began after 0.6 ms and took 12.6; the whole took 13.4, and each is rounded by itself.
    attempt = Attempt("anthropic", "claude-test", 200, "", 13, at_ms=1)
    row = make_row(attempts=(attempt,), latency_ms=13, llm_latency_ms=13).row
    whole, child = exported(row)
    assert child.end_time_unix_nano == whole.end_time_unix_nano
    assert child.start_time_unix_nano == whole.start_time_unix_nano + MS


def test_ids_lead_from_a_span_to_its_row_and_to_its_caller():
    row = make_row().row
    (trace_id, span_id, parent), child = ids(row)
    assert (trace_id, span_id, parent) == (row.id.hex, row.id.hex[16:], "")
    assert (child[0], child[2]) == (trace_id, span_id)
    assert len({span_id, child[1]}) == 2
    (trace_id, own_id, parent), child = ids(row, CALLER)
    assert (trace_id, own_id, parent) == (CALLER.trace_id, span_id, CALLER.span_id)
    assert child[0] == trace_id
    assert exported(row, CALLER)[0].flags == 0x301  # its parent is another process's
    assert exported(row)[0].flags == 0x101


def test_the_caller_decides_and_else_the_share():
    for ratio in (0.0, 0.25, 1.0):
        least = spans.threshold(ratio)
        for sampled in (True, False):
            assert spans.is_sampled(uuid7(), CALLER._replace(is_sampled=sampled), least) == sampled
        taken = sum(spans.is_sampled(uuid7(), NO_TRACE, least) for _ in range(4000))
        assert taken == pytest.approx(4000 * ratio, abs=150)


# --- texts ------------------------------------------------------------------------------------


def texts(row) -> dict[str, Any]:
    found = attributes(exported(row, content=True)[0])
    return {
        name: json.loads(value)
        for name, value in found.items()
        if name.endswith(("messages", "instructions"))
    }


def test_no_text_leaves_unless_it_is_asked_for():
    row = make_row("a canary", prompt="a canary", system="a canary", error="a canary").row
    assert b"canary" not in spans.encode(row, NO_TRACE, "chat", content=False)


def test_texts_have_the_form_of_the_conventions():
    assert texts(make_row("Hi!", prompt="Hello", system="Be brief.").row) == {
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": "Hello"}]}
        ],
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.output.messages": [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": "Hi!"}],
                "finish_reason": "end_turn",
            }
        ],
    }


def test_a_conversation_keeps_its_turns_and_calls_of_tools():
    call = ToolUse("call-1", "weather", '{"city": "Bern"}')
    said = (Message("user", (Text("And Bern?"),)), Message("assistant", (call,)))
    row = make_row(conversation=dump(said, (), NO_OPTIONS), blocks=dump_blocks([call])).row
    found = texts(row)
    called = {
        "type": "tool_call",
        "id": "call-1",
        "name": "weather",
        "arguments": '{"city": "Bern"}',
    }
    assert found["gen_ai.input.messages"] == [
        {"role": "user", "parts": [{"type": "text", "content": "And Bern?"}]},
        {"role": "assistant", "parts": [called]},
    ]
    assert found["gen_ai.output.messages"][0]["parts"] == [called]


def test_a_long_text_is_cut():
    found = texts(make_row("x" * 100_000, prompt="y" * 100_000).row)
    assert len(found["gen_ai.input.messages"][0]["parts"][0]["content"]) == spans.MAX_TEXT_CHARS
    assert len(found["gen_ai.output.messages"][0]["parts"][0]["content"]) == spans.MAX_TEXT_CHARS


@pytest.mark.parametrize(
    ("kept", "leave"),
    [
        ({"content": "full"}, True),
        ({"content": "redacted"}, True),
        ({"content": "hashed"}, False),
        ({"content": "metadata"}, False),
        ({"content": "full", "encryption_key": "2027-01"}, False),
    ],
)
def test_texts_leave_only_where_the_log_keeps_texts(kept, leave):
    assert spans.keeps_texts(make_row(**kept).row) == leave


def test_a_result_that_is_held_for_repetitions_only_does_not_leave():
    """Its request may be repeated for a day, and after that the log has it redacted."""
    row = make_row("whole", content="redacted", result_held=True).row
    assert "gen_ai.output.messages" not in texts(row)
    assert "gen_ai.output.messages" in texts(replace(row, result_held=False))
