"""Log rows, as the pipeline makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from time import monotonic
from uuid import uuid4

from generation.records import Attempt, Claim, GenerationRequest, KeyedRow, LogRow
from generation.uuid7 import uuid7


def make_row(text: str = "a result", *, claim: Claim | None = None, **changes) -> KeyedRow:
    values = {
        "id": uuid7(),
        "user_id": 1,
        "prompt": "a prompt",
        "system": "",
        "result": text,
        "result_cleaned": False,
        "provider": "anthropic",
        "model": "claude-test",
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "status": "succeeded",
        "error_type": "",
        "error": "",
        "stop_reason": "end_turn",
        "attempts": (Attempt("anthropic", "claude-test", 200, "", 12),),
        "raw_reply": "",
        "cost_usd": Decimal("0.000123456"),
        "latency_ms": 20,
        "llm_latency_ms": 12,
        "request_id": "r",
        "created_at": datetime.now(UTC),
        "cache_read_tokens": 2,
        "cache_write_tokens": 1,
        "api_key_id": 5,
        "max_tokens": 1024,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "replay_of": uuid4(),
        "metadata": {"ticket": "4711"},
    }
    return KeyedRow(LogRow(**{**values, **changes}), claim)


def make_claim(key: str = "k") -> Claim:
    return Claim(user_id=1, key=key, fingerprint="", token=uuid4())


def a_request(text: str = "") -> GenerationRequest:
    return GenerationRequest(
        user_id=1,
        request_id="r",
        arrived_at=datetime.now(UTC),
        started=monotonic(),
        input=text,
        idempotency_key="k",
    )
