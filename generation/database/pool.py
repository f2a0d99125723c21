"""SQLAlchemy's queue pool, measured."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import asyncpg
from sqlalchemy import event
from sqlalchemy.pool import AsyncAdaptedQueuePool

from generation.database.guard import current_ledger
from generation.telemetry import metrics
from generation.telemetry.durations import Durations
from generation.telemetry.snapshot import PoolSnapshot

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import AdaptedConnection
    from sqlalchemy.pool import ConnectionPoolEntry

# SQLAlchemy logs at INFO each pool that it disposes of, under the pool class's own name.
logging.getLogger(f"{__name__}.MeasuredPool").setLevel(logging.WARNING)

PING_AFTER_S = 1.0  # a connection that was in use more recently is not tested again


class MeasuredPool(AsyncAdaptedQueuePool):
    """A queue pool that also knows its waits, hold times and peaks, and writes the ledgers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waits = Durations()
        self.holds = Durations()
        self.peak_checked_out = 0
        self.peak_open = 0
        self._links: WeakSet[asyncpg.Connection] = WeakSet()
        event.listen(self, "connect", self._connected)
        event.listen(self, "checkout", self._checked_out)
        event.listen(self, "checkin", self._checked_in)

    def _do_get(self) -> ConnectionPoolEntry:
        """Times the wait for a connection, and skips the ping of one that was just in use.

        It overrides SQLAlchemy's private hook; a test fails if the hook or `fresh` is renamed.
        """
        started = perf_counter()
        try:
            entry = super()._do_get()
            # SQLAlchemy does not ping a fresh entry. A ping costs as much as a statement.
            idle_s = perf_counter() - entry.info.get("returned_at", -PING_AFTER_S)
            entry.fresh = entry.fresh or idle_s < PING_AFTER_S  # type: ignore[attr-defined]  # ours alone
            return entry
        finally:
            waited = perf_counter() - started
            self.waits.add(waited)
            metrics.CONNECTION_WAIT.observe(waited)

    def _connected(self, connection: AdaptedConnection, entry: ConnectionPoolEntry) -> None:
        entry.info["opened_at"] = perf_counter()
        self._links.add(connection.driver_connection)
        self.peak_open = max(self.peak_open, self.open)

    def _checked_out(self, _connection: object, entry: ConnectionPoolEntry, _proxy: object) -> None:
        self.peak_checked_out = max(self.peak_checked_out, self.checkedout())
        ledger = current_ledger()
        if ledger is not None:
            ledger.held += 1
        entry.info["staccato"] = (perf_counter(), ledger)

    def _checked_in(self, _connection: object, entry: ConnectionPoolEntry) -> None:
        started, ledger = entry.info.pop("staccato", (None, None))
        if started is None:
            return
        if ledger is not None:
            ledger.held -= 1
        entry.info["returned_at"] = now = perf_counter()
        held = now - started
        self.holds.add(held)
        metrics.CONNECTION_HOLD.observe(held)

    @property
    def open(self) -> int:
        """Connections that PostgreSQL has not ended.

        The pool's own count has entries whose connection was lost, or could not be opened.
        """
        return sum(not link.is_closed() for link in self._links)

    def snapshot(self) -> PoolSnapshot:
        is_open, checked_out = self.open, self.checkedout()
        return PoolSnapshot(
            size=self.size(),
            max_overflow=self._max_overflow,
            open=is_open,
            checked_out=checked_out,
            # A connection counts as checked out while it is still being opened.
            checked_in=max(0, is_open - checked_out),
            overflow=max(0, self.overflow()),
            peak_open=self.peak_open,
            peak_checked_out=self.peak_checked_out,
            waits=self.waits.summary(),
            holds=self.holds.summary(),
        )
