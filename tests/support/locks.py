"""Locks that make the service's statements wait."""

from __future__ import annotations

import contextlib

import asyncpg

from tests.support.waiting import until


@contextlib.asynccontextmanager
async def locked(database_url: str, table: str):
    """Statements on the table wait until the block ends."""
    link = await asyncpg.connect(database_url)
    try:
        async with link.transaction():
            await link.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await link.close()


async def until_blocked(sql, statement: str = "") -> None:
    """A statement of the service waits for the lock: one with these words, because housekeeping
    may wait as well."""
    blocked = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'staccato'"
        " AND wait_event_type = 'Lock' AND position($1 in query) > 0"
    )
    await until(lambda: sql.fetchval(blocked, statement), "a statement that waits for the lock")
