"""Which partitions there are, as PostgreSQL's catalog says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from generation.errors import DatabaseUnavailable
from generation.partitions.intervals import LAST_ID, ZERO_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.database.engine import Database
    from generation.partitions.ddl import Parent

# Comments on tables: on one that is about to be dropped, and on one that was archived.
DOOMED = "staccato: past its retention"
ARCHIVED = "staccato: archived"

_PARENT = text("""
SELECT nspname, relkind::text = 'p' AS is_partitioned, statement_timestamp() AS now
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(:quoted)
""")
_PARTITIONS = text("""
SELECT relname, inhdetachpending AS is_pending,
    pg_get_expr(relpartbound, pg_class.oid) AS bound,
    obj_description(pg_class.oid, 'pg_class') AS comment
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = to_regclass(:quoted)
ORDER BY relname
""")
_TABLES = text("""
SELECT relname, obj_description(pg_class.oid, 'pg_class') = :doomed AS is_doomed
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = :schema AND relkind = 'r' AND NOT relispartition
    AND starts_with(relname, :prefix)
""")
_BOUND = re.compile(r"FROM \((?:'([0-9a-f-]+)'|MINVALUE)\) TO \((?:'([0-9a-f-]+)'|MAXVALUE)\)")


@dataclass(frozen=True, slots=True)
class Partition:
    """A table's part for the ids from one until just before another."""

    name: str
    start: UUID
    end: UUID
    is_pending: bool = False  # its detaching was cut off
    is_archived: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The state of a partitioned table at a moment of the database's clock."""

    parent: Parent  # with its schema
    now: datetime
    partitions: Sequence[Partition]
    detached: Sequence[str] = ()  # doomed tables that were not dropped, because of a kill
    strangers: Sequence[str] = ()  # tables that have a partition's name, and are none


async def look(database: Database, parent: Parent) -> Found:
    """Raises `DatabaseUnavailable`, also where the table is missing or not partitioned."""
    rows = await database.read(_PARENT, {"quoted": parent.quoted(parent.table)})
    if not rows or not rows[0].is_partitioned:
        raise DatabaseUnavailable(
            f"{parent.table} is not a partitioned table: run `manage.py migrate`, or `manage.py"
            " staccato_partition --convert` if there is one"
        )
    schema, _is_partitioned, now = rows[0]
    parent = replace(parent, schema=schema)
    parts = await database.read(_PARTITIONS, {"quoted": parent.quoted(parent.table)})
    tables = await database.read(
        _TABLES, {"schema": schema, "prefix": f"{parent.table}_", "doomed": DOOMED}
    )
    return Found(
        parent,
        now,
        [partition_of(row.relname, row.bound, row.is_pending, row.comment) for row in parts],
        detached=[row.relname for row in tables if row.is_doomed],
        strangers=[row.relname for row in tables if not row.is_doomed],
    )


def partition_of(
    name: str,
    bound: str | None,
    is_pending: bool,  # noqa: FBT001  # a row of the catalog, as it is
    comment: str | None,
) -> Partition:
    """Returns a partition from what the catalog says of it."""
    is_archived = (comment or "").startswith(ARCHIVED)
    found = _BOUND.search(bound or "")
    if found is None:  # a default partition, or one whose detaching is nearly done
        return Partition(name, ZERO_ID, ZERO_ID, is_pending, is_archived)
    first, last = found.groups()
    start, end = UUID(first) if first else ZERO_ID, UUID(last) if last else LAST_ID
    return Partition(name, start, end, is_pending, is_archived)
