"""All metrics in one place: few labels, never user text. Served at /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LLM_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 120)

REQUESTS = Counter(
    "staccato_requests_total", "Generate requests by outcome: succeeded or a problem's slug.",
    ["outcome"],
)
IN_FLIGHT = Gauge("staccato_requests_in_flight", "Generate requests being worked on.")
OVERHEAD = Histogram(
    "staccato_overhead_seconds", "Time of a request outside its LLM call.", buckets=_SECONDS
)
LLM_IN_FLIGHT = Gauge("staccato_llm_calls_in_flight", "Requests waiting for an LLM.")
LLM_SECONDS = Histogram(
    "staccato_llm_seconds", "Time for an LLM's answer, retries included.", buckets=_LLM_SECONDS
)
LLM_ATTEMPTS = Counter(
    "staccato_llm_attempts_total", "Calls to providers by outcome: succeeded or an error's slug.",
    ["provider", "outcome"],
)
BATCH_ROWS = Histogram(
    "staccato_batch_rows", "Rows in one statement.", ["batcher"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
CONNECTION_HOLD = Histogram(
    "staccato_db_connection_hold_seconds", "How long a connection was held.", buckets=_SECONDS
)
CONNECTION_WAIT = Histogram(
    "staccato_db_connection_wait_seconds", "How long a connection was waited for.",
    buckets=_SECONDS,
)
GUARD_VIOLATIONS = Counter(
    "staccato_guard_violations_total", "LLM calls begun while the request held a connection."
)
USAGE_LOGS_LOST = Counter("staccato_usage_logs_lost_total", "Usage rows that were not stored.")
