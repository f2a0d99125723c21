"""A plain table becomes the oldest partition of a new one, while rows are inserted. Nothing is
copied: the key is the id alone before and after, so rows and indexes stay where they are.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from generation.partitions import ddl
from generation.partitions.intervals import interval_at, moment_of
from generation.partitions.patience import administer_patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from generation.database.engine import Database
    from generation.partitions.ddl import Parent
    from generation.partitions.intervals import Interval

# Rows that come meanwhile must lie before the boundary, so it is far enough away for a table that
# takes hours to be read.
MARGIN = timedelta(days=2)
# Insertions wait while we wait for the table's lock, so we give up early and often.
LOCK_TIMEOUT_MS = 30
TRIES = 300
RETRY_S = 0.2
VALIDATION_LIMIT_S = 24 * 3600.0
_LIKE = "INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS"

_TABLE = text("""
SELECT pg_class.oid, nspname, relkind::text AS kind, statement_timestamp() AS now,
    pg_has_role(relowner, 'USAGE') AS is_owner, pg_get_userbyid(relowner) AS owner,
    relreplident::text AS replica_identity, relrowsecurity AS has_policies,
    relispartition AS is_partition, relpersistence::text AS persistence
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(:quoted)
""")
_COLUMNS = text("""
SELECT attname, attacl IS NOT NULL AS has_grants
FROM pg_attribute WHERE attrelid = CAST(:oid AS oid) AND attnum > 0 AND NOT attisdropped
""")
# What would stay with the old table, or follow it to its new name, each with a few words.
_HINDRANCES = text("""
SELECT 'the foreign key ' || conname || ' of ' || CAST(CAST(conrelid AS regclass) AS text)
FROM pg_constraint WHERE contype = 'f' AND confrelid = CAST(:oid AS oid)
UNION ALL
SELECT 'the constraint ' || conname
FROM pg_constraint WHERE conrelid = CAST(:oid AS oid) AND contype NOT IN ('p', 'n')
    AND conname <> CAST(:check AS text)
UNION ALL
SELECT DISTINCT 'the view ' || CAST(CAST(ev_class AS regclass) AS text)
FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
WHERE classid = 'pg_rewrite'::regclass AND refobjid = CAST(:oid AS oid)
    AND ev_class <> CAST(:oid AS oid)
UNION ALL
SELECT 'the rule ' || rulename FROM pg_rewrite WHERE ev_class = CAST(:oid AS oid)
UNION ALL
SELECT 'the trigger ' || tgname FROM pg_trigger
WHERE tgrelid = CAST(:oid AS oid) AND NOT tgisinternal
UNION ALL
SELECT 'the table ' || CAST(CAST(inhrelid AS regclass) AS text) || ', which inherits from it'
FROM pg_inherits WHERE inhparent = CAST(:oid AS oid)
UNION ALL
SELECT 'the unique index ' || relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = CAST(:oid AS oid) AND indisunique AND NOT indisprimary
UNION ALL
SELECT 'the invalid index ' || relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = CAST(:oid AS oid) AND NOT indisvalid
UNION ALL
SELECT 'the publication ' || pubname || ', which lacks publish_via_partition_root'
FROM pg_publication
WHERE NOT pubviaroot AND (puballtables OR EXISTS (
    SELECT FROM pg_publication_tables AS published
    WHERE published.pubname = pg_publication.pubname AND published.schemaname = :schema
        AND published.tablename = :table))
""")
_INDEXES = text("""
SELECT relname, indisprimary AS is_primary, pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = CAST(:oid AS oid)
ORDER BY relname
""")
_GRANTS = text("""
SELECT format('GRANT %s ON TABLE %s TO %s%s', privilege_type, CAST(:quoted AS text),
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS sql
FROM pg_class, aclexplode(relacl)
WHERE pg_class.oid = CAST(:oid AS oid) AND grantee <> relowner
""")


class CannotConvert(Exception):
    """The table stays as it is; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Old:
    """A plain table, and what the new one takes over from it."""

    parent: Parent  # with its schema
    oid: int
    now: datetime
    indexes: Sequence[Any]
    grants: Sequence[str]

    @property
    def check(self) -> str:
        return _check(self.parent)


async def convert(
    database: Database, parent: Parent, columns: Sequence[str], report: Callable[[str], None]
) -> bool:
    """Make a partitioned table of a plain one with these columns. Returns False if it is one.

    It can be repeated after a failure at any point. Raises `CannotConvert`, and
    `DatabaseUnavailable`.
    """
    old = await _look(database, parent, columns)
    if old is None:
        return False
    whole = old.parent.quoted(parent.table)
    interval = await _boundary(database, old)
    drop_check = f'ALTER TABLE {whole} DROP CONSTRAINT IF EXISTS "{old.check}"'
    check = f"CHECK (id < '{interval.end_id}') NOT VALID"
    await _at_once(
        database, [drop_check, f'ALTER TABLE {whole} ADD CONSTRAINT "{old.check}" {check}']
    )
    try:
        report(f"reading {parent.table}, to know that its rows are older than {interval.end}")
        await database.administer(
            f'ALTER TABLE {whole} VALIDATE CONSTRAINT "{old.check}"', limit_s=VALIDATION_LIMIT_S
        )
        await _at_once(database, _switch(old, interval))
    except BaseException:
        # Left there, it would refuse the rows that come after the boundary.
        await asyncio.shield(_at_once(database, [drop_check]))
        raise
    report(f"{parent.table} has partitions; its rows until {interval.end} are in one of them")
    return True


async def _look(database: Database, parent: Parent, columns: Sequence[str]) -> Old | None:
    """Returns None if the table is partitioned already."""
    found = await database.read(_TABLE, {"quoted": parent.quoted(parent.table)})
    if not found:
        raise CannotConvert(f"There is no table {parent.table}: run `manage.py migrate`.")
    table = found[0]
    if table.kind == "p":
        return None
    parent = replace(parent, schema=table.nspname)
    oid = {"oid": table.oid}
    there = await database.read(_COLUMNS, oid)
    _compare(parent.table, {row.attname for row in there}, set(columns))
    hindrances = [
        row[0]
        for row in await database.read(
            _HINDRANCES,
            {**oid, "check": _check(parent), "schema": parent.schema, "table": parent.table},
        )
    ]
    if any(row.has_grants for row in there):
        hindrances.append("privileges on single columns")
    if table.has_policies:
        hindrances.append("row-level security")
    if table.replica_identity != "d":
        hindrances.append("its replica identity, which is not the default")
    if table.is_partition or table.persistence != "p":
        hindrances.append("being a partition, unlogged or temporary")
    if not table.is_owner:
        hindrances.append(f"its owner: convert it as {table.owner}")
    if hindrances:
        raise CannotConvert(
            f"{parent.table} can't be converted because of {'; '.join(hindrances)}. Remove this,"
            " convert the table, and make it again."
        )
    grants = await database.read(_GRANTS, {**oid, "quoted": parent.quoted(parent.table)})
    indexes = await database.read(_INDEXES, oid)
    return Old(parent, table.oid, table.now, indexes, [row.sql for row in grants])


def _compare(table: str, there: set[str], wanted: set[str]) -> None:
    """Raises `CannotConvert` unless the table has the columns that its model has."""
    if there == wanted:
        return
    surplus, lacking = sorted(there - wanted), sorted(wanted - there)
    differences = [
        *([f"has the columns {', '.join(surplus)}, which are not its own now"] if surplus else []),
        *([f"lacks the columns {', '.join(lacking)}"] if lacking else []),
    ]
    raise CannotConvert(
        f"{table} is of another version: it {' and '.join(differences)}. To move columns means to"
        " copy rows, which this command never does. docs/log.md (Convert) says how to keep the"
        " table for reading and begin a new one."
    )


async def _boundary(database: Database, old: Old) -> Interval:
    """Returns the interval at whose end the old rows' partition ends."""
    newest = await database.read(
        text(f"SELECT id FROM {old.parent.quoted(old.parent.table)} ORDER BY id DESC LIMIT 1")  # noqa: S608  # a quoted name
    )
    last = max(old.now + MARGIN, *(moment_of(row.id) for row in newest), old.now)
    if last > old.now + ddl.AHEAD:
        raise CannotConvert(
            f"{old.parent.table} has the row {newest[0].id}, which is of {last:%Y-%m-%d}: some"
            " host's clock was wrong. Delete the rows of the future first."
        )
    return interval_at(last, old.parent.every)


def _switch(old: Old, interval: Interval) -> list[str]:
    """Returns the statements of the one short transaction in which the tables change names.

    ATTACH reads no rows, because the check shows that they fit, and takes over the old indexes,
    because the new ones are defined in the same words.
    """
    parent = old.parent
    whole = parent.quoted(parent.table)
    name = f"{parent.table}_until_{interval.end:%Y%m%d}"
    part = parent.quoted(name)
    renamed = [
        f'ALTER INDEX {parent.quoted(index.relname)} RENAME TO "{_short(index.relname, number)}"'
        for number, index in enumerate(old.indexes)
    ]
    bounds = f"FOR VALUES FROM (MINVALUE) TO ('{interval.end_id}')"
    primary = next(index for index in old.indexes if index.is_primary)
    return [
        f'ALTER TABLE {whole} RENAME TO "{name}"',
        *renamed,
        f"CREATE TABLE {whole} (LIKE {part} {_LIKE}) PARTITION BY RANGE (id)",
        f'ALTER TABLE {whole} ADD CONSTRAINT "{primary.relname}" PRIMARY KEY (id)',
        *(index.definition for index in old.indexes if not index.is_primary),
        *old.grants,
        f"ALTER TABLE {whole} ATTACH PARTITION {part} {bounds}",
        f'ALTER TABLE {part} DROP CONSTRAINT "{old.check}"',
    ]


def _check(parent: Parent) -> str:
    return f"{parent.table}_until"


def _short(index: str, number: int) -> str:
    """Returns a name for an index of the old table, within PostgreSQL's 63 characters."""
    return f"{index[:50]}_until{number}"


async def _at_once(database: Database, statements: list[str]) -> None:
    """Run these in one transaction, as soon as nobody uses the table."""
    sql = ddl.together(statements, lock_timeout_ms=LOCK_TIMEOUT_MS)
    await administer_patiently(database, sql, limit_s=10.0, tries=TRIES, pause_s=RETRY_S)
