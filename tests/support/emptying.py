"""How a test's rows are removed.

TRUNCATE makes new files for each table and index: 40 ms of a core, where DELETE takes 0.3.
"""

from __future__ import annotations

from typing import Any

FILLED = [
    "generation_generationlog",
    "generation_generationbody",
    "generation_usagelog",
    "generation_generationaccess",
    "generation_forgottenuser",
    "generation_profile",
    "generation_idempotencykey",
    "generation_announcement",
    "generation_limitwindow",
    "generation_limitlease",
    "generation_limitholder",
    "generation_rollup",
    "generation_latency",
    "generation_spend",
    "generation_spender",
    "generation_maintenance",  # a killed process leaves its leases
    "axes_accessattempt",
    "auth_user",
]
# Those and all that refer to them, as TRUNCATE … CASCADE finds them, each with its sequence.
TABLES = """
WITH RECURSIVE filled AS (
    SELECT unnest(%s::text[])::regclass::oid AS oid
    UNION
    SELECT conrelid FROM pg_constraint JOIN filled ON confrelid = filled.oid WHERE contype = 'f'
)
SELECT filled.oid::regclass::text,
    (SELECT sequence.oid::regclass::text
     FROM pg_depend JOIN pg_class AS sequence ON sequence.oid = objid AND sequence.relkind = 'S'
     WHERE refobjid = filled.oid)
FROM filled
"""


def statements(cursor: Any) -> str:
    """Empty the tables in one transaction, and let them count from 1 again."""
    cursor.execute(TABLES, [FILLED])
    # In this order, because a service that computes rollups locks them so.
    found = sorted(
        cursor.fetchall(), key=lambda row: FILLED.index(row[0]) if row[0] in FILLED else -1
    )
    tables = [table for table, _ in found]
    # What a killed service has begun to insert is waited for, and removed with the rest.
    return "; ".join(
        [
            "BEGIN",
            f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE",
            # A trigger keeps the record of accesses; this role's statements fire none.
            "SET LOCAL session_replication_role = replica",
            *(f"DELETE FROM {table}" for table in tables),
            *(f"SELECT setval('{sequence}', 1, false)" for _, sequence in found if sequence),
            "COMMIT",
        ]
    )
