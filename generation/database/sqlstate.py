"""What the driver's errors mean: the one translation of them into ours."""

from __future__ import annotations

import asyncpg
from sqlalchemy import exc

from generation.errors import DatabaseUnavailable, PartitionMissing, RowRefused, StaccatoError
from generation.telemetry.logs import throttled_logger

logger = throttled_logger(__name__)

READ_ONLY = "25006"
_CHECK_VIOLATION = "23514"
_PREPARED_ELSEWHERE = {"26000", "42P05"}  # a prepared statement is unknown, or there already
_CONNECTION_LOST = {"57P01", "57P02", "57P03"}  # admin shutdown, crash shutdown, cannot connect now
_CONNECTION_CLASS = "08"
# SQLSTATE classes in which the row is at fault: data exception, constraint violation, check
# option, program limit (e.g. an index entry that is too large), and what a trigger raises. A
# missing table or privilege is not among them: those rows wait in the journal until it is fixed.
_ROW_FAULT_CLASSES = {"22", "23", "44", "54", "P0"}


def to_staccato_error(error: Exception) -> StaccatoError | None:
    """Returns `RowRefused` or `DatabaseUnavailable`; None for an error that is a bug of ours."""
    if isinstance(error, exc.TimeoutError):
        logger.warning("no database connection was free in time: %s", error)
        return DatabaseUnavailable("no database connection was free in time", retry_after=1)
    if isinstance(error, exc.DBAPIError):
        return _from_server(error)
    if isinstance(error, OSError | asyncpg.PostgresError | asyncpg.InterfaceError):
        logger.warning("the database can't be reached: %s", str(error) or type(error).__name__)
        return DatabaseUnavailable("the database can't be reached", retry_after=1)
    return None


def _from_server(error: exc.DBAPIError) -> StaccatoError:
    state = sqlstate(error)
    if state == _CHECK_VIOLATION and _lacks_partition(error):
        logger.error("the log has no partition for a row: %s", error.orig)
        return PartitionMissing(
            "the log has no partition for a row; see manage.py staccato_maintain", retry_after=1
        )
    if state[:2] in _ROW_FAULT_CLASSES or (not state and _is_encoding_error(error)):
        return RowRefused(f"PostgreSQL can't store the row ({state or 'encoding'})")
    if state in _PREPARED_ELSEWHERE:
        logger.error(
            "the database loses prepared statements, as PgBouncer does in transaction mode:"
            " set DB_POOL_MODE=pgbouncer-transaction"
        )
    logger.warning("the database answered with an error: %s", error.orig)
    if state == READ_ONLY:
        return DatabaseUnavailable(
            "the database is read-only: perhaps another server is the primary now",
            retry_after=1,
        )
    return DatabaseUnavailable("the database does not answer as it should", retry_after=1)


def is_lost(error: StaccatoError) -> bool:
    """Whether the connection was at fault, so that a second try on another may succeed."""
    cause = error.__cause__
    if isinstance(cause, exc.DBAPIError):
        state = sqlstate(cause)
        return (
            cause.connection_invalidated
            or state in _CONNECTION_LOST
            or state[:2] == _CONNECTION_CLASS
        )
    return isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError)


def is_lock_timeout(error: StaccatoError) -> bool:
    """Whether a lock was not free within the statement's `lock_timeout`."""
    return isinstance(error.__cause__, asyncpg.LockNotAvailableError)


def is_outdated_plan(error: exc.DBAPIError) -> bool:
    """Whether a migration has changed a column since the connection prepared the statement.

    PostgreSQL says so before it runs the statement, so that it may be tried again; SQLAlchemy has
    forgotten what it had prepared.
    """
    return isinstance(_driver_error(error), asyncpg.InvalidCachedStatementError)


def sqlstate(error: exc.DBAPIError) -> str:
    """Returns the five characters that PostgreSQL answered with, '' where it did not answer."""
    return getattr(_driver_error(error), "sqlstate", None) or ""


def _lacks_partition(error: exc.DBAPIError) -> bool:
    """Whether PostgreSQL found no partition for a row. It calls that a check violation, too, but
    names a table and no constraint."""
    cause = _driver_error(error)
    return bool(getattr(cause, "table_name", None)) and not getattr(cause, "constraint_name", None)


def _driver_error(error: exc.DBAPIError) -> BaseException | None:
    """Returns asyncpg's error, if there is one. `driver_exception` raises for some of them."""
    cause: BaseException | None = error.orig
    while cause is not None and not isinstance(cause, asyncpg.PostgresError):
        cause = cause.__cause__
    return cause


def _is_encoding_error(error: exc.DBAPIError) -> bool:
    """What asyncpg finds before it asks the server has a plain cause and no SQLSTATE."""
    cause: BaseException | None = error.orig
    while cause is not None:
        if isinstance(cause, ValueError | TypeError | OverflowError | asyncpg.DataError):
            return True
        cause = cause.__cause__
    return False
