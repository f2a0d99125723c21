"""An example of every request, answer and error in the native API's documentation."""

from __future__ import annotations

from typing import Any

import orjson

from generation import errors
from generation.telemetry.snapshot import DurationSummary, JournalSnapshot, PoolPage, Snapshot

REQUEST: dict[str, Any] = {
    "input": "Why is the sky blue?",
    "variables": {"tone": "friendly"},
    "max_tokens": 300,
    "metadata": {"ticket": "4711"},
}

CONVERSATION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Shall I take an umbrella in Oslo today?"}],
    "system": "You are a friendly assistant.",
    "tools": [
        {
            "name": "weather",
            "description": "Tells the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        }
    ],
}

ANSWER: dict[str, Any] = {
    "id": "019a9b7e-3f1c-7c52-8d0e-5b1f6a2c9e44",
    "result": "Because air scatters blue light more than red.",
    "tokens": 61,
    "usage": {"input_tokens": 49, "output_tokens": 12, "total_tokens": 61},
    "model": "claude-sonnet-5-5",
    "provider": "anthropic",
    "latency_ms": 3187,
    "stop_reason": "end_turn",
}

STORED = ANSWER | {"status": "succeeded"}

EVENTS = "".join(
    f"id: {position}\nevent: {kind}\ndata: {orjson.dumps(document).decode()}\n\n"
    for position, kind, document in (
        (0, "start", {name: ANSWER[name] for name in ("id", "model", "provider")}),
        (25, "delta", {"text": "Because air scatters blue"}),
        (46, "delta", {"text": " light more than red."}),
        (46, "usage", ANSWER["usage"]),
        (46, "done", ANSWER),
    )
)

_SNAPSHOT = Snapshot(
    size=10,
    max_overflow=20,
    open=2,
    checked_in=2,
    peak_open=2,
    peak_checked_out=2,
    waits=DurationSummary(count=118, mean_ms=0.4, p50_ms=0.1, p95_ms=0.6, p99_ms=9.2, max_ms=11.8),
    holds=DurationSummary(count=118, mean_ms=2.9, p50_ms=2.6, p95_ms=4.8, p99_ms=7.1, max_ms=12.4),
    requests_in_flight=50,
    peak_requests_in_flight=200,
    max_requests_in_flight=5000,
    requests_abandoned=3,
    requests_answered=DurationSummary(
        count=6120, mean_ms=4012.7, p50_ms=3987.1, p95_ms=7402.8, p99_ms=7893.4, max_ms=8021.9
    ),
    overhead=DurationSummary(
        count=6123, mean_ms=4.4, p50_ms=3.9, p95_ms=7.6, p99_ms=12.2, max_ms=31.0
    ),
    llm_calls_in_flight=50,
    journal=JournalSnapshot(bytes=110, capacity_bytes=67_108_864),
)
POOL = PoolPage.of(4242, {4242: _SNAPSHOT, 4243: _SNAPSHOT, 4244: None}).as_json()
HISTORY = {"requests_in_flight": [49, 50, 50], "checked_out": [1, 0, 0]}

LIMITS: dict[str, Any] = {
    "limits": [
        {
            "policy": "key-usd-month",
            "scope": "key",
            "unit": "usd",
            "window": "month",
            "target": None,
            "limit": "20.00",
            "used": "7.31",
            "reserved": "0.02",
            "left": "12.67",
            "resets_at": "2026-12-01T00:00:00+01:00",
            "is_enforced": True,
        }
    ]
}
_OF_A_LIMIT: dict[str, Any] = {
    "violated-policies": ["key-usd-month"],
    "scope": "key",
    "unit": "usd",
    "window": "month",
    "resets_at": "2026-12-01T00:00:00+01:00",
    "limit": "20.00",
    "used": "19.99",
    "reserved": "0.00",
}

EXAMPLES: tuple[errors.StaccatoError, ...] = (
    errors.MalformedBody("the body is not valid JSON: unexpected end of data"),
    errors.Unauthorized("the API key is unknown or revoked"),
    errors.UserForbidden("this API key may not generate for user 7"),
    errors.ModelForbidden("this API key may not use anthropic:claude-x"),
    errors.BudgetClosed("the API key's limit of US dollars per month is 0"),
    errors.RequestExceedsLimit(
        "the request may cost more than the whole of the API key's limit of US dollars per day;"
        " with a max_tokens of 2048 it would fit"
    ),
    errors.ModelUnpriced("a budget in US dollars applies, and openai:llama3 has no known price"),
    errors.CrossSite("this request comes from another site's page"),
    errors.UnknownUser("user 99 does not exist or has no prompt"),
    errors.IdempotencyKeyInvalid("an Idempotency-Key has 1 to 255 visible ASCII characters"),
    errors.IdempotencyKeyInUse(
        "the first request with this Idempotency-Key is still being worked on", retry_after=1
    ),
    errors.IdempotencyKeyReused(
        "this Idempotency-Key was sent with another request; use a new one"
    ),
    errors.BodyTooSlow("the body did not arrive in 30 s"),
    errors.BodyTooLarge("the body is larger than 1048576 bytes"),
    errors.UriTooLong("path and query are longer than 8192 bytes"),
    errors.UnsupportedMediaType("the body's Content-Type is not application/json"),
    errors.HeadersTooLarge("there are more than 100 headers or 32768 bytes of them"),
    errors.InvalidRequest("body.input: Input should be a valid string"),
    errors.MissingVariable("the prompt template needs the variable 'tone'; set it in `variables`"),
    errors.EmptyPrompt("the prompt is empty: provide `input`, or fill in the user's template"),
    errors.InvalidTemplate(
        "the user's prompt template contains a `$` that starts neither a name nor `$$`"
    ),
    errors.ModelNotAllowed("anthropic:claude-x is not offered here"),
    errors.ParameterNotSupported("anthropic does not know `response_format`"),
    errors.LLMRefused("anthropic refuses the request: max_tokens is too large"),
    errors.RateLimited("the API key's limit of requests per minute is reached", retry_after=3),
    errors.TooManyAtOnce("the API key's limit of requests at once is reached", retry_after=1),
    errors.BudgetReserved(
        "what is left of the API key's limit of US dollars per month is reserved by requests"
        " under way",
        retry_after=2,
    ),
    errors.BudgetExhausted(
        "the API key's limit of US dollars per month is used up",
        retry_after=259_200,
        members=_OF_A_LIMIT,
    ),
    errors.LLMRateLimited("anthropic limits our rate", retry_after=12),
    errors.StaccatoError.from_bug(),
    errors.LLMUnreachable("anthropic can't be reached"),
    errors.LLMBadReply("anthropic's answer is not valid JSON"),
    errors.LLMMisconfigured("the request to anthropic can't be sent as it is set up"),
    errors.LLMAuthentication("anthropic refuses the service's credentials"),
    errors.DatabaseUnavailable("the database can't be reached", retry_after=1),
    errors.AnswerUnreadable("encrypted with key 2026-01, which is not configured"),
    errors.TooManyInFlight("5000 requests are in flight", retry_after=1),
    errors.JournalUnavailable("the journal is near full: the database has been away for long"),
    errors.Draining("the service is shutting down", retry_after=1),
    errors.LLMOverloaded("anthropic is overloaded", retry_after=5),
    errors.LLMCircuitOpen(
        "anthropic has been failing, so calls to it are paused for a moment", retry_after=10
    ),
    errors.LLMBusy("too many calls to anthropic at once", retry_after=1),
    errors.AbandonedByShutdown(
        "the service shut down before the answer was complete", retry_after=1
    ),
    errors.AbandonedByClient("the client left before the answer was complete"),
    errors.StreamBroken("anthropic broke off in the middle of its answer"),
    errors.StreamIdle("anthropic has sent nothing for 60 s"),
    errors.StreamTooLong("anthropic's answer did not end within 600 s"),
    errors.LLMTimedOut("anthropic did not answer within 30 s"),
)
