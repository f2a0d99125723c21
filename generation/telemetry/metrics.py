"""All metrics in one place: few labels, never user text. Served at /metrics."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from generation.telemetry import totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from generation.telemetry.snapshot import Snapshot

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LLM_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 120)

SUCCEEDED = "succeeded"
CLIENT_LEFT = "client-left"  # without a whole answer
REQUESTS = Counter(
    "staccato_requests_total",
    "Requests to generate by outcome: succeeded, a problem's slug, or client-left. It counts every"
    " request to the generate address once, refusals included, when its response leaves, or has"
    " left if it is a stream.",
    ["outcome"],
)
# The library's own lookup of labels takes longer.
request_counter: Callable[[str], Counter] = functools.cache(REQUESTS.labels)
OVERHEAD = Histogram(
    "staccato_overhead_seconds", "Time of a request outside its LLM call.", buckets=_SECONDS
)
# Of the LLM: by the models that the settings name, and `other` for all else, so that nobody's
# words make a series.
LLM_SECONDS = Histogram(
    "staccato_llm_seconds",
    "Time for an LLM's answer, retries included, by the provider and model that were asked last.",
    ["provider", "model"],
    buckets=_LLM_SECONDS,
)
LLM_TOKENS = Counter(
    "staccato_llm_tokens_total",
    "Tokens of stored generations. cache_read and cache_write are parts of input.",
    ["provider", "model", "type"],
)
LLM_COST = Counter(
    "staccato_llm_cost_usd_total",
    "US dollars that stored generations cost, as far as prices are known.",
    ["provider", "model"],
)
LLM_UNPRICED = Counter(
    "staccato_llm_unpriced_total",
    "Stored generations that used tokens and have no cost, because no price is known.",
    ["provider", "model"],
)
LLM_ATTEMPTS = Counter(
    "staccato_llm_attempts_total",
    "Calls to providers by outcome: succeeded or an error's slug.",
    ["provider", "outcome"],
)
LLM_STALE_CONNECTIONS = Counter(
    "staccato_llm_stale_connections_total",
    "Calls repeated because the provider had closed an idle connection. They are no attempts.",
)
LLM_DOUBTFUL = Counter(
    "staccato_llm_doubtful_answers_total",
    "Answers with a part beside the text that could not be read, e.g. usage, by that part.",
    ["provider", "part"],
)
LLM_CIRCUIT_OPEN = Gauge(
    "staccato_llm_circuit_open", "1 while the circuit of a failing provider is open.", ["provider"]
)
BATCH_ROWS = Histogram(
    "staccato_batch_rows",
    "Rows in one statement.",
    ["batcher"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
CONNECTION_HOLD = Histogram(
    "staccato_db_connection_hold_seconds", "How long a connection was held.", buckets=_SECONDS
)
CONNECTION_WAIT = Histogram(
    "staccato_db_connection_wait_seconds",
    "How long a request waited for a connection.",
    buckets=_SECONDS,
)
GUARD_VIOLATIONS = Counter(
    "staccato_guard_violations_total", "LLM calls that began while the request held a connection."
)
VIEWS_HOLDING = Counter(
    "staccato_views_holding_connections_total",
    "Views that held a Django connection while they streamed or waited, by what they did.",
    ["doing"],
)
EXPORT_DROPPED = Counter(
    "staccato_export_dropped_total",
    "Generations whose spans were not exported: the queue was full, or the collector is away or"
    " refuses them. Their log rows are stored all the same.",
    ["exporter"],
)
Gauge(totals.PROCESS_UP, "1 for a process that answers, 0 for one that should and does not.").set(1)
BUILD_INFO = Gauge("staccato_build_info", "1; its label has the version.", ["version"])
JOURNALED = Counter("staccato_journaled_rows_total", "Rows that went to the journal.")
REPLAYED = Counter("staccato_replayed_rows_total", "Rows stored from the journal.")
REFUSED_ROWS = Counter("staccato_refused_rows_total", "Rows that PostgreSQL refused.")
EXPIRED_ROWS = Counter(
    "staccato_expired_rows_total",
    "Rows that came from a journal so late that their retention was over, and were not stored.",
)
REDACTOR_FAILURES = Counter(
    "staccato_redactor_failures_total",
    "Times that STACCATO_REDACTOR failed, so that texts were kept as hashes.",
)
REDACTOR_TIME = Histogram(
    "staccato_redactor_seconds",
    "What STACCATO_REDACTOR takes for a text; nothing else of the process runs meanwhile.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1),
)
# By table also because a gauge without labels would say 0 until it is known.
PARTITIONS_AHEAD = Gauge(
    "staccato_log_partitions_ahead_seconds",
    "For how long rows to come have partitions, by table; at 0 they wait in the journal. Eight"
    " weeks, if maintenance works; looked up every ten minutes.",
    ["table"],
)
ROLLUP_LAG = Gauge(
    "staccato_rollup_lag_seconds",
    "How long ago rows were stored that are not in the rollups yet; half a minute, if all is well.",
    ["table"],
)
LIMIT_REFUSALS = Counter(
    "staccato_limit_refusals_total",
    "Calls that a limit refused, by the limit's unit and scope.",
    ["unit", "scope"],
)
REFUSALS_HELD = Counter(
    "staccato_refusals_held_total",
    "Refusals that waited before they left, because clients ask again faster than they may.",
)
LIMIT_SHADOW = Counter(
    "staccato_limit_shadow_total",
    "Calls that a limit would have refused if it were enforced.",
    ["unit", "scope"],
)
LEASE_STATEMENTS = Counter(
    "staccato_lease_statements_total", "Statements that leased parts of limits."
)
LEASE_WAIT = Histogram(
    "staccato_lease_wait_seconds",
    "How long a call waited for such a statement; most calls need none.",
    buckets=_SECONDS,
)
USAGE_LOGS_LOST = Counter("staccato_usage_logs_lost_total", "Usage rows that were not stored.")


class _SnapshotGauges(Collector):
    """Gauges that are read when Prometheus asks, not kept up to date on the hot path."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        now = self._snapshot()
        for name, help_text, value in (
            ("db_pool_size", "Connections the pool keeps open.", now.size),
            ("db_connections_open", "Connections open now.", now.open),
            ("db_connections_checked_out", "Connections in use now.", now.checked_out),
            ("db_connections_overflow", "Connections beyond the pool's size.", now.overflow),
            (
                "db_connections_peak_checked_out",
                "Most connections in use since start.",
                now.peak_checked_out,
            ),
            ("requests_in_flight", "Generate requests being worked on.", now.requests_in_flight),
            (
                "requests_in_flight_limit",
                "STACCATO_MAX_IN_FLIGHT, or what the open-file limit carries; beyond it, 503.",
                now.max_requests_in_flight,
            ),
            ("llm_calls_in_flight", "Requests waiting for an LLM.", now.llm_calls_in_flight),
            ("journal_bytes", "Bytes of the journal in use.", now.journal.bytes),
            ("journal_capacity_bytes", "Bytes of it on disk.", now.journal.capacity_bytes),
        ):
            yield GaugeMetricFamily(f"staccato_{name}", help_text, value=value)
        rows = GaugeMetricFamily(
            "staccato_journal_rows",
            "Rows that PostgreSQL has not stored, by where they are. disk: they wait. memory: a"
            " kill would lose them, because no disk takes them. refused: dead letters.",
            labels=["where"],
        )
        rows.add_metric(["disk"], now.journal.rows)
        rows.add_metric(["memory"], now.journal.rows_in_memory_only)
        rows.add_metric(["refused"], now.journal.rows_refused)
        yield rows


@contextlib.contextmanager
def exposing_gauges(snapshot: Callable[[], Snapshot]) -> Iterator[Callable[[], None]]:
    """Serve the runtime's gauges while the block runs. Yields what ends that, for a process that
    was forked inside and never comes to the block's end."""
    collector = _SnapshotGauges(snapshot)
    REGISTRY.register(collector)
    try:
        yield functools.partial(REGISTRY.unregister, collector)
    finally:
        REGISTRY.unregister(collector)
