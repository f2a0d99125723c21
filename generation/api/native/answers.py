"""The native API's answers: a generation as JSON, under way, done or read from the log."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from generation.asgi.problems import stored_problem
from generation.conversation import as_json
from generation.events import Start, TextDelta
from generation.records import Generation, Usage

if TYPE_CHECKING:
    from generation.pipeline.call import GenerationCall
    from generation.records import StoredGeneration


def answer(generation: Generation) -> dict[str, Any]:
    usage = usage_of(generation.usage)
    body: dict[str, Any] = {
        "id": generation.id,
        "result": generation.result,
        "tokens": usage["total_tokens"],
        "usage": usage,
        "model": generation.model,
        "provider": generation.provider,
        "latency_ms": generation.latency_ms,
        "stop_reason": generation.stop_reason,
    }
    if generation.blocks:
        body["content"] = [as_json(block) for block in generation.blocks]
    return body


def usage_of(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens or 0,  # unknown; clients expect a number
        "output_tokens": usage.output_tokens or 0,
        "total_tokens": usage.known_tokens,
    }


def running_answer(call: GenerationCall) -> dict[str, Any]:
    """What there is of an answer that is not whole."""
    events = call.relay.events if call.relay else []
    start = next((event for event in events if isinstance(event, Start)), Start(""))
    so_far = Generation(
        id=call.id,
        result="".join(event.text for event in events if isinstance(event, TextDelta)),
        usage=Usage(None, None),
        provider=start.provider,
        model=start.model,
        latency_ms=round((monotonic() - call.request.started) * 1000),
    )
    return answer(so_far) | {"status": "running"}


def stored_answer(stored: StoredGeneration) -> dict[str, Any]:
    body = answer(stored.generation) | {"status": stored.status}
    if stored.error_type:
        body["error"] = stored_problem(stored.error_type, stored.error)
    return body
