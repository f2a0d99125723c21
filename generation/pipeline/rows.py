"""The log row of a generation. Pure, except for the row's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

from generation.pipeline.prompts import clean
from generation.records import LogRow

if TYPE_CHECKING:
    from generation.llm.completion import Outcome
    from generation.records import GenerationRequest, Prompt

_MODEL_CHARS = 200  # as wide as their columns
_STOP_REASON_CHARS = 64


def from_outcome(
    request: GenerationRequest,
    prompt: Prompt,
    outcome: Outcome,
    latency_s: float,
    llm_latency_s: float,
) -> LogRow:
    reply, error = outcome.reply, outcome.error
    usage = reply.usage if reply else None
    result, result_cleaned = clean(reply.text) if reply else ("", False)
    return LogRow(
        id=uuid7(),
        user_id=request.user_id,
        prompt=prompt.text,
        system=prompt.system,
        provider=outcome.provider,
        model=_shorten(outcome.model, _MODEL_CHARS),
        status=error.row_status if error else "succeeded",
        attempts=outcome.attempts,
        raw_reply=clean((error or outcome.require_reply()).raw_reply)[0],
        latency_ms=round(latency_s * 1000),
        llm_latency_ms=round(llm_latency_s * 1000),
        request_id=request.request_id,
        created_at=request.arrived_at,
        result=result,
        result_cleaned=result_cleaned,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        total_tokens=usage.total_tokens if usage else None,
        stop_reason=_shorten(reply.stop_reason, _STOP_REASON_CHARS) if reply else "",
        cost_usd=reply.cost_usd if reply else None,
        error_type=error.slug if error else "",
        error=clean(error.detail)[0] if error else "",
        cache_read_tokens=usage.cache_read_tokens if usage else None,
        cache_write_tokens=usage.cache_write_tokens if usage else None,
        api_key_id=request.grant.key_id,
        max_tokens=prompt.max_tokens,
        trace_id=request.trace_id,
        metadata=request.metadata,
    )


def _shorten(text: str, length: int) -> str:
    return clean(text[:length])[0]
