"""The usage log: written after the answer has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import DatabaseUnavailable, StaccatoError
from generation.records import UsageRow
from generation.store import tables
from generation.store.documents import as_document, insert_from, rows_of
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.database.engine import Database
    from generation.records import LogRow

logger = throttled_logger(__name__)

BOUNDS = Bounds(batch_rows=1000, batch_bytes=MIB, queue_rows=20_000, queue_bytes=8 * MIB)
LINGER_S = 0.2  # no caller waits for these rows, so they wait for each other
_ROW_BYTES = 64
_COLUMNS = tuple(UsageRow.__dataclass_fields__)


class UsageLogs:
    """Records what users spend."""

    def __init__(self, database: Database) -> None:
        self._database = database
        usage_log = tables.load().usage_log
        self._statement = insert_from(rows_of("rows", usage_log, _COLUMNS), usage_log, _COLUMNS)
        self._inserts: Batcher[UsageRow, None] = Batcher(
            "usage", self._insert_batch, BOUNDS, weigh=lambda _row: _ROW_BYTES, linger_s=LINGER_S
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._inserts,)

    def __len__(self) -> int:
        """How many rows wait."""
        return len(self._inserts)

    def record(self, row: LogRow) -> None:
        """Fire and forget: a failure is counted and touches no answer."""
        tokens = (row.input_tokens or 0) + (row.output_tokens or 0)  # as many as are known
        usage = UsageRow(row.user_id, tokens, row.latency_ms, row.created_at)
        try:
            self._inserts.submit(usage)
        except DatabaseUnavailable:
            metrics.USAGE_LOGS_LOST.inc()

    async def _insert_batch(self, rows: Sequence[UsageRow]) -> list[None]:
        try:
            await self._database.run(self._statement, {"rows": as_document(rows)})
        except StaccatoError as error:
            metrics.USAGE_LOGS_LOST.inc(len(rows))
            logger.warning("usage logs are not stored: %s", error)  # the counter has the number
        return [None] * len(rows)
