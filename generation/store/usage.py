"""The usage log: written after the answer has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Interval, bindparam, delete, func, select

from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import DatabaseUnavailable, StaccatoError
from generation.records import UsageRow
from generation.store import tables
from generation.store.documents import as_document, insert_from, rows_of
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from sqlalchemy import Executable, Table

    from generation.database.engine import Database
    from generation.records import LogRow

logger = throttled_logger(__name__)

BOUNDS = Bounds(batch_rows=1000, batch_bytes=MIB, queue_rows=20_000, queue_bytes=8 * MIB)
PURGE_ROWS = 10_000
LINGER_S = 0.2  # no caller waits for these rows, so they wait for each other
_ROW_BYTES = 64
_COLUMNS = tuple(UsageRow.__dataclass_fields__)


class UsageLogs:
    """Records what users spend."""

    def __init__(self, database: Database, kept: timedelta) -> None:
        self._database = database
        self._kept = kept
        usage_log = tables.load().usage_log
        self._purge_statement = _purge_statement(usage_log)
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
        assert row.user_id is not None, "nobody spends nothing"
        usage = UsageRow(row.user_id, tokens, row.latency_ms, row.created_at)
        try:
            self._inserts.submit(usage)
        except DatabaseUnavailable:
            metrics.USAGE_LOGS_LOST.inc()

    async def purge(self, rows: int = PURGE_ROWS) -> int:
        """Delete the rows that are older than their retention, this many in one statement.

        Returns how many. Raises `DatabaseUnavailable`.
        """
        deleted, in_all = rows, 0
        while deleted == rows:
            parameters = {"kept": self._kept, "rows": rows}
            deleted = len(await self._database.run(self._purge_statement, parameters))
            in_all += deleted
        return in_all

    async def _insert_batch(self, rows: Sequence[UsageRow]) -> list[None]:
        try:
            await self._database.run(self._statement, {"rows": as_document(rows)})
        except StaccatoError as error:
            metrics.USAGE_LOGS_LOST.inc(len(rows))
            logger.warning("usage logs are not stored: %s", error)  # the counter has the number
        return [None] * len(rows)


def _purge_statement(usage_log: Table) -> Executable:
    """Looks at the rows that were inserted first: no index has their times, and none is needed."""
    first = (
        select(usage_log.c.id, usage_log.c.created_at)
        .order_by(usage_log.c.id)
        .limit(bindparam("rows", type_=Integer))
        .subquery()
    )
    old = select(first.c.id).where(
        first.c.created_at < func.now() - bindparam("kept", type_=Interval)
    )
    return delete(usage_log).where(usage_log.c.id.in_(old)).returning(usage_log.c.id)
