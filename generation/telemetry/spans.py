"""A generation as spans, in the JSON of OTLP: one for the generation, and a child for each attempt.

The names `gen_ai.…` are of docs/gen-ai/gen-ai-spans.md in open-telemetry/semantic-conventions-genai
at 002c8a6, where all of them are still in development. Pure functions.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import orjson

from generation.conversation import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from generation.records import Attempt, LogRow, Trace

CLIENT: Final = 3  # a span's kind
ERROR: Final = 2  # a span's status
SAMPLED: Final = 0x101  # and it is said below whether the parent is another process's
REMOTE_PARENT: Final = 0x200
MAX_TEXT_CHARS = 65_536  # of one text, so that a batch stays within a collector's limits
_RANDOM: Final = 1 << 56  # so many values have the random bits of a trace id, by W3C Trace Context
_NS_PER_MS = 1_000_000
_CONTENT = ("full", "redacted")  # the modes whose texts are still texts


def threshold(ratio: float) -> int:
    """Returns what `is_sampled()` compares with, for that share of the traces."""
    return round((1 - ratio) * _RANDOM)


def is_sampled(row_id: UUID, trace: Trace, least: int) -> bool:
    """The caller's decision. Without one, that of OpenTelemetry's consistent sampling, which every
    service takes alike."""
    if trace.trace_id:
        return trace.is_sampled
    return row_id.int % _RANDOM >= least


def encode(row: LogRow, trace: Trace, operation: str, *, content: bool) -> bytes:
    """Returns the spans, separated by commas; with `content`, what the row keeps of the texts.

    Ids follow from the row's, so that a span leads to its row and back.
    """
    trace_id, span_id = trace.trace_id or row.id.hex, row.id.hex[16:]
    start = round(row.created_at.timestamp() * 1_000_000) * 1000
    asked_ms = row.latency_ms - row.llm_latency_ms  # from the arrival on
    asked = row.attempts[-1] if row.attempts else row  # the row has the answer's name of the model
    span = {
        "traceId": trace_id,
        "spanId": span_id,
        "flags": SAMPLED,
        "name": f"{operation} {asked.model}",
        "kind": CLIENT,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + row.latency_ms * _NS_PER_MS),
        "attributes": _attributes(row, operation, asked.model, asked_ms, content=content),
    }
    if trace.span_id:
        span["parentSpanId"] = trace.span_id
        span["flags"] = SAMPLED | REMOTE_PARENT
    if row.error_type:
        span["status"] = {"code": ERROR}
    started = start + asked_ms * _NS_PER_MS
    children = [
        _attempt(number, attempt, span, started + attempt.at_ms * _NS_PER_MS)
        for number, attempt in enumerate(row.attempts, 1)
    ]
    return orjson.dumps([span, *children])[1:-1]


def _attributes(
    row: LogRow, operation: str, asked_model: str, asked_ms: int, *, content: bool
) -> list[dict[str, Any]]:
    given = [
        _text("gen_ai.operation.name", operation),
        _text("gen_ai.provider.name", row.provider),
        _text("gen_ai.request.model", asked_model),
        _text("staccato.log_id", str(row.id)),
        _text("staccato.request_id", row.request_id),
    ]
    if row.user_id is not None:
        given.append(_text("user.id", str(row.user_id)))
    if row.api_key_id is not None:
        given.append(_integer("staccato.api_key_id", row.api_key_id))
    if row.max_tokens:
        given.append(_integer("gen_ai.request.max_tokens", row.max_tokens))
    if row.is_streamed:
        given.append(_value("gen_ai.request.stream", boolValue=True))
    if row.first_token_ms is not None:
        first_s = (row.first_token_ms - asked_ms) / 1000
        given.append(_value("gen_ai.response.time_to_first_chunk", doubleValue=first_s))
    given += _outcome(row)
    if content:
        given += [_text(name, orjson.dumps(value).decode()) for name, value in _texts(row)]
    return given


def _outcome(row: LogRow) -> Iterator[dict[str, Any]]:
    if row.error_type:
        yield _text("error.type", row.error_type)
    else:
        yield _text("gen_ai.response.model", row.model)
    if row.stop_reason:
        reasons = {"values": [{"stringValue": row.stop_reason}]}
        yield _value("gen_ai.response.finish_reasons", arrayValue=reasons)
    for name, tokens in (
        ("gen_ai.usage.input_tokens", row.input_tokens),
        ("gen_ai.usage.output_tokens", row.output_tokens),
        ("gen_ai.usage.cache_read.input_tokens", row.cache_read_tokens),
        ("gen_ai.usage.cache_creation.input_tokens", row.cache_write_tokens),
    ):
        if tokens is not None:
            yield _integer(name, tokens)
    if row.cost_usd is not None:
        yield _value("staccato.cost_usd", doubleValue=float(row.cost_usd))


def _attempt(number: int, attempt: Attempt, whole: dict[str, Any], start: int) -> dict[str, Any]:
    """Without the name of an operation, since what reads those would count the tokens twice.

    It ends with the whole at the latest: times are rounded one by one, and a child after its
    parent's end is taken for a clock that is wrong.
    """
    latest = int(whole["endTimeUnixNano"])
    attributes = [
        _text("gen_ai.provider.name", attempt.provider),
        _text("gen_ai.request.model", attempt.model),
    ]
    if attempt.status is not None:
        attributes.append(_integer("http.response.status_code", attempt.status))
    span = {
        "traceId": whole["traceId"],
        "spanId": f"{random.getrandbits(64):016x}",
        "parentSpanId": whole["spanId"],
        "flags": SAMPLED,
        "name": f"attempt {number}",
        "kind": CLIENT,
        "startTimeUnixNano": str(min(start, latest)),
        "endTimeUnixNano": str(min(start + attempt.ms * _NS_PER_MS, latest)),
        "attributes": attributes,
    }
    if attempt.error:
        attributes.append(_text("error.type", attempt.error))
        span["status"] = {"code": ERROR}
    return span


# --- texts ------------------------------------------------------------------------------------


def keeps_texts(row: LogRow) -> bool:
    """Whether a row keeps texts that can be read: no hashes, and not encrypted."""
    return row.content in _CONTENT and not row.encryption_key


def _texts(row: LogRow) -> list[tuple[str, Any]]:
    """Of the row as it is kept. A result that is only held for repetitions is none that is kept."""
    sent = parse(row.conversation) or {}
    messages = [
        {"role": message["role"], "parts": _parts(message["content"])}
        for message in sent.get("messages", ())
    ]
    prompt = [{"role": "user", "parts": _plain(row.prompt)}]
    texts: list[tuple[str, Any]] = [("gen_ai.input.messages", messages or prompt)]
    if row.system:
        texts.append(("gen_ai.system_instructions", _plain(row.system)))
    if not row.result_held:
        parts = _parts(parse(row.blocks) or ()) or _plain(row.result)
        answer = {"role": "assistant", "parts": parts, "finish_reason": row.stop_reason}
        texts.append(("gen_ai.output.messages", [answer]))
    return texts


def _plain(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "content": text[:MAX_TEXT_CHARS]}]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [_part(part) for part in content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part["type"]:
        case "text":
            return {"type": "text", "content": part["text"][:MAX_TEXT_CHARS]}
        case "thinking":
            return {"type": "reasoning", "content": part["text"][:MAX_TEXT_CHARS]}
        case "tool_use":
            return {
                "type": "tool_call",
                "id": part["id"],
                "name": part["name"],
                "arguments": part["arguments"],
            }
        case "tool_result":
            return {
                "type": "tool_call_response",
                "id": part["tool_use_id"],
                "response": _parts(part["content"]),
            }
    return part


# --- values -----------------------------------------------------------------------------------


def _value(name: str, **value: Any) -> dict[str, Any]:
    return {"key": name, "value": value}


def _text(name: str, text: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": text}}


def _integer(name: str, number: int) -> dict[str, Any]:
    """As text, because JSON has no integers of 64 bits."""
    return {"key": name, "value": {"intValue": str(number)}}


def resource(service: str, version: str, attributes: dict[str, str]) -> tuple[bytes, bytes]:
    """Returns what stands before and after the spans of a request to a collector."""
    of_service = {**attributes, "service.name": service, "service.version": version}
    described = orjson.dumps(
        {
            "resource": {"attributes": [_text(*each) for each in of_service.items()]},
            "scopeSpans": [{"scope": {"name": "staccato", "version": version}, "spans": []}],
        }
    )
    before, after = b'{"resourceSpans":[%s]}' % described, b"]}]}]}"
    return before.removesuffix(after), after
