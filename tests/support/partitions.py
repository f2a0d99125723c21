"""Room in the log for rows of another time than now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.models import GenerationBody, GenerationLog
from generation.partitions import ddl
from generation.partitions.intervals import DAY, WEEK, interval_at

if TYPE_CHECKING:
    from datetime import datetime

PARENTS = (
    ddl.Parent(GenerationLog._meta.db_table, WEEK),
    ddl.Parent(GenerationBody._meta.db_table, DAY),
)


def make_room(cursor: Any, *moments: datetime) -> None:
    """Make the partitions for rows of these moments, where there are none."""
    for parent in PARENTS:
        for interval in {interval_at(moment, parent.every) for moment in moments}:
            cursor.execute(f"SELECT to_regclass('{parent.partition(interval)}')")
            if cursor.fetchone()[0] is None:
                for statement in ddl.make(parent, interval):
                    cursor.execute(statement)
