"""Before anything is served: the system checks, and a look at the database through Django."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

import generation
from generation.llm.offer import Offer
from generation.llm.providers.registry import default_provider, find
from generation.runtime import server
from generation.runtime.connections import budget as connection_budget
from generation.telemetry import metrics

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from generation.conf import Settings

logger = logging.getLogger(__name__)

VERSION = generation.__version__


def run_checks() -> None:
    """Raises `ImproperlyConfigured` if a system check tagged `staccato` finds an error."""
    found = checks.run_checks(tags=["staccato"], include_deployment_checks=True)
    serious = [message for message in found if message.is_serious()]
    for message in found:
        if not message.is_serious():
            logger.warning("%s", _in_a_line(message))  # it may explain what is serious
    if serious:
        raise ImproperlyConfigured("; ".join(map(_in_a_line, serious)))


def _in_a_line(message: checks.CheckMessage) -> str:
    return f"{message.id}: {message.msg} {message.hint or ''}".strip()


def warn_about(settings: Settings) -> None:
    """Log what a service in production should not be like."""
    if not (settings.keys_required or django_settings.DEBUG):
        logger.critical(
            "STACCATO_API_KEYS_REQUIRED is off and so is DEBUG: anybody who reaches this service"
            " can spend your money"
        )
    if default_provider(settings) == "simulated":
        logger.warning("the LLM is simulated: it invents its answers")


def announce(settings: Settings, database: str) -> None:
    """Log what serves, where, and with what; `/metrics` has the version."""
    metrics.BUILD_INFO.labels(VERSION).set(1)
    default = Offer(settings).targets[0]
    url = find(settings, default.provider).address(settings)
    at = server.address()
    logger.info(
        "Staccato %s serves%s%s as process %d; LLM: %s%s; database: %s",
        VERSION,
        "" if settings.serve == "all" else f" {settings.serve} only",
        f" at {at}" if at else "",
        os.getpid(),
        default,
        f" at {url}" if url else "",
        database,
    )


async def prepare(settings: Settings, workers: int) -> list[str]:
    """Returns the migrations that have not been applied. Logs them, and whether PostgreSQL has
    enough connections for so many workers.

    A database that can't be reached does not stop the start: it may come back, and until then
    requests are answered with 503.
    """
    pending = await asyncio.to_thread(_inspect_database, settings, workers)
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


def leave_pool_to_parent(alias: str) -> object:
    """After a fork: let Django open another pool than the one that opening the runtime has filled.
    Two processes would talk over the same connections. Returns the parent's."""
    pools: dict[str, object] = getattr(connections[alias], "_connection_pools", {})
    return pools.pop(alias, None)


def _inspect_database(settings: Settings, workers: int) -> list[str]:
    connection = connections[settings.database]
    driver: Any = connection.Database  # type: ignore[attr-defined]  # the stubs lack it
    try:
        _log_connection_budget(settings, workers)
        return _find_pending_migrations(connection)
    except (DatabaseError, driver.Error, OSError) as error:  # also of its pool
        logger.warning("the database can't be reached yet: %s", error)
        return []
    finally:
        connection.close()


def _find_pending_migrations(connection: BaseDatabaseWrapper) -> list[str]:
    executor = MigrationExecutor(connection)
    ours = executor.loader.graph.leaf_nodes("generation")
    plan = executor.migration_plan(ours)
    return [str(each) for each, _backwards in plan if each.app_label == "generation"]


def _log_connection_budget(settings: Settings, workers: int) -> None:
    found = connection_budget(settings, workers)
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
