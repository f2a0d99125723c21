"""Partitions are made ahead of time, and dropped when their rows' retention is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from generation.errors import DatabaseUnavailable
from generation.partitions import ddl
from generation.partitions.catalog import DOOMED, Found, look
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY, WEEK
from generation.partitions.lease import LASTS, leased
from generation.partitions.patience import administer_patiently
from generation.partitions.plan import Plan, covered_until, plan
from generation.partitions.words import index_words
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from generation.conf import Settings
    from generation.database.engine import Database

logger = logging.getLogger(__name__)

Report = Callable[[str], None]
NOW = timedelta(0)
PARTITIONS = "partitions"
STATISTICS = "statistics"
ACCESS_GUARD = "generation_access_is_append_only"  # a function that a migration has made
DUE_AFTER = timedelta(hours=1)
ANALYZE_AFTER = timedelta(days=1)

TRIES = 5
RETRY_S = 0.5
# Detaching waits for the transactions that may still see the partition. It is cut off after this
# time, which leaves the partition pending, and is finished the next time.
STATEMENT_LIMIT_S = 60.0
ANALYZE_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, and how to report it."""

    rank: int  # lower ones first: rows that come now matter more than space
    words: str
    statements: Sequence[str]


def kept_tables(settings: Settings) -> dict[Parent, timedelta]:
    """Returns the partitioned tables, the log first, and how long their rows are kept."""
    from generation.models import (  # need Django's apps
        GenerationAccess,
        GenerationBody,
        GenerationLog,
    )

    return {
        Parent(GenerationLog._meta.db_table, WEEK): timedelta(days=settings.log_retention_days),
        Parent(GenerationBody._meta.db_table, DAY): timedelta(days=settings.body_days),
        Parent(GenerationAccess._meta.db_table, WEEK, truncate_guard=ACCESS_GUARD): timedelta(
            days=settings.access_retention_days
        ),
    }


class LogMaintenance:
    """The partitions of the log and of its texts. One per process; the lease lets one work."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._archive_first = settings.archive_first
        self._indexes_words = settings.search == "words"
        self._kept = kept_tables(settings)
        _log, self._bodies, *_others = self._kept

    async def run(self) -> None:
        """Do what is due, unless another process does. Raises `DatabaseUnavailable`."""
        await self.maintain(_log, due_after=DUE_AFTER, analyze_after=ANALYZE_AFTER)

    async def maintain(
        self, report: Report, *, due_after: timedelta = NOW, analyze_after: timedelta = NOW
    ) -> bool:
        """Do what was last done so long ago, and report each step, in words, once it is done.

        Returns whether all was done, or was not due; False if another process is at work. Raises
        `DatabaseUnavailable`; what was done until then stays.
        """
        try:
            async with leased(self._database, PARTITIONS, every=due_after) as partitions:
                if partitions:
                    await self._work(report)
        finally:
            await self.measure()
        async with leased(self._database, STATISTICS, every=analyze_after) as statistics:
            if statistics:
                log = next(iter(self._kept))  # texts are read by their key alone
                await self._database.administer(ddl.analyze(log), limit_s=ANALYZE_LIMIT_S)
                report(f"analyzed {log.table}")
        words = True
        if self._indexes_words:
            words = await index_words(self._database, self._bodies, report, due_after=due_after)
        return bool(partitions and statistics and words)

    async def planned(self) -> list[str]:
        """Returns the steps that `maintain()` would take now, in words."""
        return [step.words for step in await self._steps()]

    async def measure(self) -> timedelta:
        """Returns for how long rows to come have partitions; the metrics have it for each table."""
        found = [await look(self._database, parent) for parent in self._kept]
        ahead = {each.parent.table: covered_until(each) - each.now for each in found}
        for table, time_ahead in ahead.items():
            metrics.PARTITIONS_AHEAD.labels(table).set(time_ahead.total_seconds())
        return min(ahead.values())

    async def _work(self, report: Report) -> None:
        """Twice, because a table whose detaching is finished in the first pass is then dropped."""
        until = time.monotonic() + LASTS.total_seconds() / 2
        for _pass in range(2):
            for step in await self._steps():
                if time.monotonic() > until:
                    raise DatabaseUnavailable("partitions are dropped at the next opportunity")
                for sql in step.statements:
                    await administer_patiently(
                        self._database,
                        sql,
                        limit_s=STATEMENT_LIMIT_S,
                        tries=TRIES,
                        pause_s=RETRY_S,
                    )
                report(step.words)

    async def _steps(self) -> list[Step]:
        found = [(await look(self._database, parent), kept) for parent, kept in self._kept.items()]
        steps = [
            step
            for each, kept in found
            for step in _steps(each, plan(each, kept, archive_first=self._archive_first))
        ]
        return sorted(steps, key=lambda step: step.rank)


def _steps(found: Found, plan: Plan) -> Iterator[Step]:
    parent = found.parent
    for interval in plan.make:
        name = parent.partition(interval)
        yield Step(1, f"made {name}", [ddl.together(ddl.make(parent, interval))])
    for part in plan.finish:
        yield Step(2, f"detached {part.name}", [ddl.finish_detaching(parent, part.name)])
    for part in plan.detach:
        statements = [
            ddl.together([ddl.mark(parent, part.name, DOOMED)]),
            ddl.detach(parent, part.name),
            ddl.together([ddl.drop(parent, part.name)]),
        ]
        yield Step(3, f"dropped {part.name}", statements)
    for name in plan.drop:
        yield Step(4, f"dropped {name}", [ddl.together([ddl.drop(parent, name)])])


def _log(words: str) -> None:
    logger.info("the log's partitions: %s", words)
