"""Statements that wait for a lock only shortly, and so are tried again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from generation.database.sqlstate import is_lock_timeout
from generation.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from generation.database.engine import Database


async def administer_patiently(
    database: Database, sql: str, *, limit_s: float, tries: int, pause_s: float
) -> None:
    """Run a statement as soon as its lock is free. Raises `DatabaseUnavailable`, also if the lock
    was free in none of so many tries."""
    for further_tries in reversed(range(tries)):
        try:
            await database.administer(sql, limit_s=limit_s)
        except DatabaseUnavailable as error:
            if not (is_lock_timeout(error) and further_tries):
                raise
            await asyncio.sleep(pause_s)
        else:
            return
