"""The log row of a generation. It settles what the call has reserved of its caller's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation.conversation import dump_blocks, dump_conversation
from generation.records import LogRow
from generation.storable import clean

if TYPE_CHECKING:
    from generation.llm.completion import Outcome
    from generation.pipeline.call import GenerationCall
    from generation.records import Prompt

MAX_TEXT_CHARS = 65_536
_MODEL_CHARS = 200  # as wide as their columns
_STOP_REASON_CHARS = 64


def from_outcome(
    call: GenerationCall,
    prompt: Prompt,
    outcome: Outcome,
    latency_s: float,
    llm_latency_s: float,
) -> LogRow:
    request, relay, meter = call.request, call.relay, call.meter
    reply, error = outcome.reply, outcome.error
    usage = reply.usage if reply else None
    text = reply.text if reply else ""
    result = clean(text)
    first_at = relay.first_at if relay else None
    return LogRow(
        id=call.id,
        user_id=request.user_id,
        prompt=_keep(prompt.text) if prompt.messages else prompt.text,
        system=_keep(prompt.system) if prompt.messages else prompt.system,
        provider=outcome.provider,
        model=_shorten(outcome.model, _MODEL_CHARS),
        status=error.row_status if error else "succeeded",
        attempts=outcome.attempts,
        raw_reply=clean((error or outcome.require_reply()).raw_reply),
        latency_ms=round(latency_s * 1000),
        llm_latency_ms=round(llm_latency_s * 1000),
        request_id=request.request_id,
        created_at=request.arrived_at,
        result=result,
        result_cleaned=result != text,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        total_tokens=usage.total_tokens if usage else None,
        stop_reason=_shorten(reply.stop_reason, _STOP_REASON_CHARS) if reply else "",
        cost_usd=reply.cost_usd if reply else None,
        price=reply.price if reply else "",
        charges=meter.settle() or None if meter else None,
        is_cost_assumed=meter.is_assumed if meter else False,
        error_type=error.slug if error else "",
        error=clean(error.detail) if error else "",
        cache_read_tokens=usage.cache_read_tokens if usage else None,
        cache_write_tokens=usage.cache_write_tokens if usage else None,
        api_key_id=request.grant.key_id,
        max_tokens=prompt.max_tokens or None,
        trace_id=request.trace.trace_id,
        replay_of=request.replay_of,
        author_id=request.author_id,
        metadata=request.metadata,
        is_streamed=request.is_streamed,
        first_token_ms=None if first_at is None else round((first_at - request.started) * 1000),
        is_estimated=usage is not None and usage.is_estimated,
        conversation=dump_conversation(prompt.messages, prompt.tools, prompt.options),
        blocks=dump_blocks(reply.blocks) if reply else "",
    )


def _keep(text: str) -> str:
    """What a row keeps of a text in a conversation, which may be a document of megabytes."""
    if len(text) <= MAX_TEXT_CHARS:
        return clean(text)
    left_out = len(text) - MAX_TEXT_CHARS
    return f"{clean(text[:MAX_TEXT_CHARS])}\n[{left_out} more characters are not kept]"


def _shorten(text: str, length: int) -> str:
    return clean(text[:length])
