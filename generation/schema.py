"""A look at the database through Django, in a thread, before anything is served."""

from __future__ import annotations

import asyncio
import logging

from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from psycopg import Error as PsycopgError
from psycopg_pool import PoolTimeout

logger = logging.getLogger(__name__)


async def prepare(alias: str) -> list[str]:
    """The migrations that are still to be applied, and a word about them in the log.

    A database that can't be reached is no reason to stay down: it may come back, and until
    then requests are answered with 503.
    """
    pending = await asyncio.to_thread(_find_pending_migrations, alias)
    if pending:
        logger.error(
            "the database lacks %d migrations (%s …): run `manage.py migrate`",
            len(pending),
            pending[0],
        )
    return pending


async def release(alias: str) -> None:
    """Close the Django connections and their pool."""
    await asyncio.to_thread(_close, alias)


def _find_pending_migrations(alias: str) -> list[str]:
    connection = connections[alias]
    try:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        return [str(migration) for migration, _backwards in plan]
    except (DatabaseError, PsycopgError, PoolTimeout, OSError) as error:
        logger.warning("the database can't be reached yet: %s", error)
        return []
    finally:
        connection.close()


def _close(alias: str) -> None:
    connection = connections[alias]
    connection.close()
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        close_pool()
