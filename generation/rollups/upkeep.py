"""Rollups are recomputed where the log has changed: by one process at a time, every half minute."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import text

from generation.errors import DatabaseUnavailable
from generation.partitions.catalog import look
from generation.partitions.intervals import moment_of
from generation.partitions.lease import leased
from generation.partitions.maintenance import kept_tables
from generation.rollups import statements
from generation.rollups.buckets import (
    HOUR,
    MINUTE,
    ROLLUP_LENGTHS,
    Span,
    ceiling,
    floor,
)
from generation.telemetry import metrics

if TYPE_CHECKING:
    from uuid import UUID

    from generation.conf import Settings
    from generation.database.engine import Database

logger = logging.getLogger(__name__)

ROLLUPS = "rollups"
EVERY = timedelta(seconds=25)
REST = 10  # times what a pass took, so that passes take a tenth of a connection's time at most
LONGEST_REST = timedelta(minutes=5)
LEASE = timedelta(minutes=2)  # longer than a statement may take; each transaction extends it
STATEMENT_LIMIT_S = 60.0
# A row's `stored_at` is when its statement began, so it may be seen later by as long as that took.
OVERLAP = timedelta(minutes=1)
WINDOW = HOUR  # of `stored_at`, that is looked at in one go
PASS_S = 3.0  # for rows that were there before the first pass
CHUNK_S = 1.5  # what a transaction over such rows should take
MOST_HOURS = 7 * 24
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)  # before any row: there are none left to go back to
# A week whose last rows came late is summed again from its days, also from those of its beginning.
SLACK = timedelta(days=8)
SHORT_KEPT = timedelta(days=190)
EXPIRE_ROWS = 10_000
_TABLE = "generation_rollup"  # the others are computed in the same transaction


class LeaseLost(DatabaseUnavailable):
    """Another process has the lease by now, since we took longer than ours lasts."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the rollups follow the log."""

    now: datetime  # by the database's clock
    watermark: datetime | None  # rows stored until then are in them; None before the first pass
    back_to: datetime | None  # rows that were stored before the first pass are in them since then


class Rollups:
    """The rollups of one database. One per process; the lease lets one work."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._log, self._log_kept = next(iter(kept_tables(settings).items()))
        self._kept = timedelta(days=settings.rollup_retention_days)
        self._took_s = 0.0

    async def run(self) -> None:
        """Do what is due, unless another process does. Raises `DatabaseUnavailable`."""
        rest = min(timedelta(seconds=REST * self._took_s), LONGEST_REST)
        await self.follow(every=max(EVERY, rest), limit_s=PASS_S)

    async def follow(self, *, every: timedelta, limit_s: float) -> bool:
        """Recompute what has changed since, then so long what was there before the first pass.

        Returns whether that is all; False also if another process is at it, or it is not due.
        Raises `DatabaseUnavailable`; what was done until then stays.
        """
        is_all = False
        try:
            async with leased(self._database, ROLLUPS, every=every, lasts=LEASE) as holder:
                if holder:
                    began = time.monotonic()
                    is_all = await _Pass(self._database, holder, await self._horizon()).work(
                        limit_s
                    )
                    self._took_s = time.monotonic() - began
        finally:
            await self.measure()
        return is_all

    async def measure(self) -> timedelta | None:
        """Returns how long ago rows were stored that are not in the rollups yet, and has the
        metrics show it from now on; None before the first pass. Raises `DatabaseUnavailable`.
        """
        progress = await _progress(self._database)
        if progress is None or progress.watermark is None:
            return None
        lag, read_at = progress.now - progress.watermark, time.monotonic()
        # It grows by itself, so that it shows also that the database can't be asked.
        metrics.ROLLUP_LAG.labels(_TABLE).set_function(
            lambda: lag.total_seconds() + time.monotonic() - read_at
        )
        return lag

    async def purge(self, rows: int = EXPIRE_ROWS) -> int:
        """Delete what is past its retention, this many rows in one statement.

        Short buckets are kept as long as the log, since they can be recomputed until then, and at
        least so long that the dashboard has its longest range and the one before it. Returns how
        many. Raises `DatabaseUnavailable`.
        """
        short = max(self._log_kept + SLACK, SHORT_KEPT)
        in_all = 0
        for table, column, is_long in statements.EXPIRING:
            kept = max(short, self._kept) if is_long else short
            sql, deleted = statements.EXPIRE.format(table=table, column=column), rows
            while deleted == rows:
                async with self._database.transaction(limit_s=STATEMENT_LIMIT_S) as run:
                    deleted = len(await run(sql, kept, rows))
                in_all += deleted
        return in_all

    async def _horizon(self) -> datetime:
        """Returns since when the log has all its rows. Older buckets stay as they are.

        Whole partitions are dropped once all their rows are past the retention, so none is younger.
        """
        found = await look(self._database, self._log)
        living = [part.start for part in found.partitions if not part.is_pending]
        oldest = moment_of(min(living)) if living else found.now
        return ceiling(max(oldest, found.now - self._log_kept), 60)


class _Pass:
    """One process's work under the lease."""

    def __init__(self, database: Database, holder: UUID, horizon: datetime) -> None:
        self._database = database
        self._holder = holder
        self._horizon = horizon

    async def work(self, limit_s: float) -> bool:
        """Returns whether the rollups have all that the log has."""
        progress = await _progress(self._database)
        assert progress, "the lease is a row"
        now, watermark, back_to = progress.now, progress.watermark, progress.back_to
        if watermark is None or back_to is None:
            # Rows stored from now on are found by that, and all others by going back.
            watermark, back_to = now, ceiling(now, 60)
            await self._recompute(None, watermark=watermark, back_to=back_to)
        await self._go_forward(watermark, now)
        return await self._go_back(back_to, limit_s)

    async def _go_forward(self, watermark: datetime, now: datetime) -> None:
        """Recompute the buckets of rows that were stored since the watermark."""
        while watermark < now:
            until = min(watermark + WINDOW, now)
            for span in await self._touched(watermark - OVERLAP, until):
                await self._recompute(span)
            await self._recompute(None, watermark=until)
            watermark = until

    async def _touched(self, since: datetime, until: datetime) -> list[Span]:
        """Returns what to recompute, newest first, each within an hour."""
        async with self._database.transaction(limit_s=STATEMENT_LIMIT_S) as run:
            found = await run(statements.TOUCHED, since, until, self._horizon)
        hours = groupby((row["bucket"] for row in found), key=lambda bucket: floor(bucket, 60))
        spans = []
        for _hour, buckets in hours:
            newest, *others = buckets
            oldest = others[-1] if others else newest
            spans.append(Span(oldest, newest + ROLLUP_LENGTHS[0] * MINUTE))
        return spans

    async def _recompute(
        self,
        span: Span | None,
        *,
        watermark: datetime | None = None,
        back_to: datetime | None = None,
    ) -> None:
        """Make the buckets of a span equal to the log, and note the progress, in one transaction.

        Raises `LeaseLost`; then neither is done.
        """
        async with self._database.transaction(limit_s=STATEMENT_LIMIT_S) as run:
            if span:
                await run(statements.PLANNING)
                for minutes, sql in statements.ALL:
                    whole = span.widened(minutes)
                    await run(sql, whole.since, whole.until)
            noted = await run(statements.ADVANCE, ROLLUPS, self._holder, watermark, back_to, LEASE)
            if not noted:
                raise LeaseLost("another process recomputes the rollups by now")

    async def _go_back(self, back_to: datetime, limit_s: float) -> bool:
        """Recompute further into the past. Returns whether the log's beginning is reached."""
        oldest = await self._database.read(text(statements.OLDEST))
        # A row is older than its id by the time that its request's body took.
        beginning = moment_of(oldest[0].id) - HOUR if oldest else back_to
        end = max(self._horizon, floor(beginning, 60))
        hours, until = 1, time.monotonic() + limit_s
        while back_to > end:
            if time.monotonic() > until:
                return False
            since = max(back_to - hours * HOUR, end)
            began = time.monotonic()
            await self._recompute(Span(since, back_to), back_to=since)
            took_s = time.monotonic() - began
            hours = min(2 * hours, MOST_HOURS) if took_s < CHUNK_S else max(hours // 2, 1)
            back_to = since
        # Else the pages of a service younger than their period say for ever that more will come.
        if BEGINNING < back_to <= floor(beginning, 60):
            await self._recompute(None, back_to=BEGINNING)
        return True


async def _progress(database: Database) -> Progress | None:
    rows = await database.read(text(statements.PROGRESS), {"task": ROLLUPS})
    return Progress(rows[0].now, rows[0].watermark, rows[0].back_to) if rows else None
