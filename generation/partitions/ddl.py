"""The SQL of partitions: text only, for a migration and for maintenance alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generation.partitions.intervals import Interval

AHEAD = timedelta(weeks=8)
# A statement that waits for a lock makes all later ones wait too, so it gives up soon.
LOCK_TIMEOUT_MS = 500


@dataclass(frozen=True, slots=True)
class Parent:
    """A partitioned table."""

    table: str
    every: timedelta  # the length of a partition's interval
    schema: str = ""  # '': where the search path finds the table
    truncate_guard: str = ""  # the trigger function that refuses TRUNCATE; '': it is allowed

    def partition(self, interval: Interval) -> str:
        """Returns the name of the partition for an interval, e.g. generation_body_20260131."""
        return f"{self.table}_{interval.start:%Y%m%d}"

    def quoted(self, table: str) -> str:
        names = [self.schema, table] if self.schema else [table]
        return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def make(parent: Parent, interval: Interval) -> list[str]:
    """Returns the statements that add an empty partition; for one transaction.

    No insertion waits: unlike CREATE TABLE … PARTITION OF, which locks the parent against all,
    ATTACH PARTITION takes a SHARE UPDATE EXCLUSIVE lock, and an empty table is not scanned.
    """
    whole, part = parent.quoted(parent.table), parent.quoted(parent.partition(interval))
    return [
        f"CREATE TABLE {part} (LIKE {whole} INCLUDING ALL)",
        *([guard(parent, parent.partition(interval))] if parent.truncate_guard else []),
        (
            f"ALTER TABLE {whole} ATTACH PARTITION {part}"
            f" FOR VALUES FROM ('{interval.first_id}') TO ('{interval.end_id}')"
        ),
    ]


def guard(parent: Parent, name: str) -> str:
    """Returns the statement that has a partition refuse TRUNCATE.

    PostgreSQL gives a parent's triggers for each row to its partitions, but not those for each
    statement.
    """
    function = parent.quoted(parent.truncate_guard)
    return (
        f'CREATE TRIGGER "{parent.truncate_guard}" BEFORE TRUNCATE ON {parent.quoted(name)}'
        f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
    )


def detach(parent: Parent, name: str) -> str:
    """Returns the statement that detaches a partition without a lock that insertions wait for.

    It must run outside a transaction. One that was cut off leaves the partition *pending*, which
    `finish_detaching` ends.
    """
    return f"{_alter(parent)} DETACH PARTITION {parent.quoted(name)} CONCURRENTLY"


def finish_detaching(parent: Parent, name: str) -> str:
    return f"{_alter(parent)} DETACH PARTITION {parent.quoted(name)} FINALIZE"


def mark(parent: Parent, name: str, comment: str) -> str:
    return f"COMMENT ON TABLE {parent.quoted(name)} IS '{comment}'"


def drop(parent: Parent, name: str) -> str:
    return f"DROP TABLE {parent.quoted(name)}"


def together(statements: list[str], *, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> str:
    """Returns one statement that runs all of these or none, and waits shortly for their locks.

    Behind PgBouncer, a setting lasts safely only within a statement.
    """
    return f"""
DO $do$
BEGIN
    PERFORM set_config('lock_timeout', '{lock_timeout_ms}ms', true);
    {"; ".join(statements)};
END
$do$"""


def analyze(parent: Parent) -> str:
    """Autovacuum analyzes each partition, but never the whole."""
    return f"ANALYZE {parent.quoted(parent.table)}"


def _alter(parent: Parent) -> str:
    return f"ALTER TABLE {parent.quoted(parent.table)}"


def compress(table: str, columns: list[str]) -> str:
    """Returns a statement that has long texts compressed with lz4, if the server is built with it.

    lz4 takes a fraction of pglz's CPU; a server without it keeps pglz.
    """
    changes = ", ".join(f'ALTER COLUMN "{column}" SET COMPRESSION lz4' for column in columns)
    return f"""
DO $$
BEGIN
    ALTER TABLE "{table}" {changes};
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$"""
