"""A look at the database through Django, in a thread, before anything is served."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from psycopg import Error as PsycopgError
from psycopg_pool import PoolTimeout

from generation import conf
from generation.runtime.connections import budget as connection_budget

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)


async def prepare(alias: str, workers: int) -> list[str]:
    """The migrations that are still to be applied, and a word about them in the log; another
    where so many workers may want more connections than there are.

    A database that can't be reached is no reason to stay down: it may come back, and until
    then requests are answered with 503.
    """
    pending = await asyncio.to_thread(_look, alias, workers)
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


def _look(alias: str, workers: int) -> list[str]:
    connection = connections[alias]
    try:
        _log_connections(workers)
        return _find_pending_migrations(connection)
    except (DatabaseError, PsycopgError, PoolTimeout, OSError) as error:
        logger.warning("the database can't be reached yet: %s", error)
        return []
    finally:
        connection.close()


def _find_pending_migrations(connection: BaseDatabaseWrapper) -> list[str]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [str(migration) for migration, _backwards in plan]


def _log_connections(workers: int) -> None:
    found = connection_budget(conf.load(), workers)
    if found is None:
        return
    if found.fits:
        logger.info("connections: %s", found.verdict)
    else:
        logger.warning("connections: %s. %s", found.verdict, found.remedy)


def _close(alias: str) -> None:
    connection = connections[alias]
    connection.close()
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        close_pool()
