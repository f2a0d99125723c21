"""The AsyncEngine, its pool's statistics, and the guard against held connections.

Recommended settings are the defaults in `conf.py`. A connection is borrowed inside one
function and returned before it ends; nothing here hands one out for longer.
"""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import asyncpg
from django.db import connections
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn

from generation.database import dsn as address
from generation.errors import ConnectionHeld, DatabaseUnavailable, RowRefused, StaccatoError
from generation.telemetry import metrics
from generation.telemetry.durations import Durations
from generation.telemetry.logs import OncePerWhile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sqlalchemy import Executable, Row
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.engine.interfaces import AdaptedConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from generation.conf import Settings

logger = logging.getLogger(__name__)
logger.addFilter(OncePerWhile())
# SQLAlchemy tells at INFO of each pool that it disposes of, under the pool class's own name.
logging.getLogger(f"{__name__}.MeasuredPool").setLevel(logging.WARNING)

LEAVE_AFTER_S = 1.0  # a connection to a read-only server is given up when it is so old
PING_AFTER_S = 1.0  # a connection that was in use so lately is not tested again
_CONNECTION_LOST = {"57P01", "57P02", "57P03"}  # admin shutdown, crash shutdown, cannot connect now
_READ_ONLY = "25006"
# PgBouncer gives each transaction another server connection, where a statement prepared before
# is unknown or another's; without both caches each statement is parsed, bound and run in one go.
_UNPREPARED = {"prepared_statement_cache_size": 0, "statement_cache_size": 0}
# SQLSTATE classes: data exception, constraint violation, check option, program limit (an index
# entry that is too large), and what a trigger raises. A missing table or privilege is none of
# these: rows wait in the journal until that is mended.
_ROWS_FAULT = {"22", "23", "44", "54", "P0"}


class Ledger:
    """How many connections one request holds."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


_ledger: ContextVar[Ledger | None] = ContextVar("staccato_ledger", default=None)


class MeasuredPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's queue pool, which also knows its waits, hold times and peaks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waits = Durations()
        self.holds = Durations()
        self.peak_checked_out = 0
        self.peak_open = 0
        self._links: WeakSet[asyncpg.Connection] = WeakSet()
        event.listen(self, "connect", self._connected)
        event.listen(self, "checkout", self._checked_out)
        event.listen(self, "checkin", self._checked_in)

    def _do_get(self) -> ConnectionPoolEntry:
        started = perf_counter()
        try:
            entry = super()._do_get()
            # SQLAlchemy's pre-ping passes over what is fresh. It costs as much as a statement.
            idle_s = perf_counter() - entry.info.get("returned_at", -PING_AFTER_S)
            entry.fresh = entry.fresh or idle_s < PING_AFTER_S  # type: ignore[attr-defined]
            return entry
        finally:
            waited = perf_counter() - started
            self.waits.add(waited)
            metrics.CONNECTION_WAIT.observe(waited)

    def _connected(self, connection: AdaptedConnection, entry: ConnectionPoolEntry) -> None:
        entry.info["opened_at"] = perf_counter()
        self._links.add(connection.driver_connection)
        self.peak_open = max(self.peak_open, self.open)

    def _checked_out(self, _connection: object, entry: ConnectionPoolEntry, _proxy: object) -> None:
        self.peak_checked_out = max(self.peak_checked_out, self.checkedout())
        ledger = _ledger.get()
        if ledger is not None:
            ledger.held += 1
        entry.info["staccato"] = (perf_counter(), ledger)

    def _checked_in(self, _connection: object, entry: ConnectionPoolEntry) -> None:
        started, ledger = entry.info.pop("staccato", (None, None))
        if started is None:
            return
        if ledger is not None:
            ledger.held -= 1
        entry.info["returned_at"] = now = perf_counter()
        held = now - started
        self.holds.add(held)
        metrics.CONNECTION_HOLD.observe(held)

    @property
    def open(self) -> int:
        """Connections that PostgreSQL has not ended.

        The pool's own count has entries whose connection was lost, or could not be opened.
        """
        return sum(not link.is_closed() for link in self._links)

    def statistics(self) -> dict[str, Any]:
        """Connections as they stand now, their peaks, waits and hold times."""
        is_open, checked_out = self.open, self.checkedout()
        return {
            "size": self.size(),
            "max_overflow": self._max_overflow,
            "open": is_open,
            "checked_out": checked_out,
            "checked_in": max(0, is_open - checked_out),  # one that is being opened is lent already
            "overflow": max(0, self.overflow()),
            "peak_open": self.peak_open,
            "peak_checked_out": self.peak_checked_out,
            "waits": self.waits.summary(),
            "holds": self.holds.summary(),
        }


class Database:
    """The hot path's door to PostgreSQL. Belongs to one process and one event loop."""

    def __init__(self, engine: AsyncEngine, *, strict: bool) -> None:
        self.engine = engine
        self._strict = strict
        transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._sessions = async_sessionmaker(transactional, expire_on_commit=False)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, *, strict: bool) -> AsyncIterator[Database]:
        """Build the engine for the Django database that the settings name.

        With `strict`, a held connection raises; else it is counted and logged.
        """
        url, arguments = address.of(connections.settings[settings.database])
        is_direct = settings.db_pool_mode == "direct"
        engine = create_async_engine(
            url,
            poolclass=MeasuredPool,
            pool_size=settings.db_pool_size,
            max_overflow=settings.db_max_overflow,
            pool_timeout=settings.db_pool_timeout,
            pool_recycle=settings.db_pool_recycle,
            # PgBouncer replaces its connections itself, and would have to lend one for each ping.
            pool_pre_ping=settings.db_pool_pre_ping and is_direct,
            echo=settings.db_echo,
            # The hot path's single statements; set here, it costs nothing at each checkout.
            isolation_level="AUTOCOMMIT",
            connect_args={
                "timeout": settings.db_pool_timeout,
                "command_timeout": settings.db_command_timeout,
                **({} if is_direct else _UNPREPARED),
                **arguments,
            },
        )
        if is_direct:  # PgBouncer keeps its own connections, whatever we do with ours
            event.listen(engine.sync_engine, "handle_error", _leave_a_demoted_server)
        try:
            yield cls(engine, strict=strict)
        finally:
            await engine.dispose()

    @property
    def address(self) -> str:
        """Which database it is, without the password."""
        return self.engine.url.render_as_string()

    @property
    def pool(self) -> MeasuredPool:
        pool = self.engine.pool
        assert isinstance(pool, MeasuredPool)
        return pool

    async def run(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """Borrow a connection, run one statement, its own transaction, and give it back; the rows.

        Errors come translated: `DatabaseUnavailable` or `RowRefused`.
        """
        try:
            # One switch into SQLAlchemy's synchronous core instead of an AsyncConnection's five:
            # a quarter of what a statement costs.
            return await greenlet_spawn(self._run, statement, parameters)
        except Exception as error:
            translated = translate(error)
            if translated is None:
                raise
            raise translated from error

    def _run(
        self, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> list[Row[*tuple[Any, ...]]]:
        with self.engine.sync_engine.connect() as connection:
            result = connection.execute(statement, parameters)
            return list(result) if result.returns_rows else []

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """An ORM session that rolls back on error and always gives its connection back.

        For code of your own around the pipeline; commit before the block ends.
        """
        async with self._sessions() as session:
            try:
                yield session
            except BaseException:
                await session.rollback()
                raise

    def track(self) -> None:
        """Count, from here on, the connections that this task and its children hold."""
        _ledger.set(Ledger())

    @contextlib.contextmanager
    def no_connection_held(self) -> Iterator[None]:
        """Guards the LLM phase: raises `ConnectionHeld` (strict) or counts the violation."""
        ledger = _ledger.get()
        if ledger is not None and ledger.held:
            metrics.GUARD_VIOLATIONS.inc()
            broken = ConnectionHeld(
                f"{ledger.held} database connection(s) are held by this request as its LLM call"
                " begins; leave the `async with` block that borrowed them first"
            )
            if self._strict:
                raise broken
            logger.error("%s", broken)
        yield


def _leave_a_demoted_server(context: ExceptionContext) -> None:
    """A server that has become a standby keeps its connections, and refuses what they write.

    New ones may lead to its successor; these would be in use until DB_POOL_RECYCLE. One that is
    new itself has shown that there is none yet: else each write would open another.
    """
    error, connection = context.sqlalchemy_exception, context.connection
    # The connection is asked last: after another error there may be none behind it any more.
    if isinstance(error, exc.DBAPIError) and _sqlstate(error) == _READ_ONLY and connection:
        age = perf_counter() - connection.info["opened_at"]
        context.is_disconnect = age > LEAVE_AFTER_S  # all of the pool's are replaced


def is_lost(error: StaccatoError) -> bool:
    """Whether the connection was at fault, so that a second try on another may succeed."""
    cause = error.__cause__
    if isinstance(cause, exc.DBAPIError):
        state = _sqlstate(cause)
        return cause.connection_invalidated or state in _CONNECTION_LOST or state[:2] == "08"
    return isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError)


def translate(error: Exception) -> StaccatoError | None:
    """The one translator of driver errors; None for what is none of the database's doing."""
    if isinstance(error, exc.TimeoutError):
        return DatabaseUnavailable("no database connection was free in time", retry_after=1)
    if isinstance(error, exc.DBAPIError):
        state = _sqlstate(error)
        if state[:2] in _ROWS_FAULT or (not state and _is_encoding_error(error)):
            return RowRefused(f"PostgreSQL can't store the row ({state or 'encoding'})")
        logger.warning("the database answered with an error: %s", error.orig)
        if state == _READ_ONLY:
            return DatabaseUnavailable(
                "the database is read-only: perhaps another server is the primary now",
                retry_after=1,
            )
        return DatabaseUnavailable("the database does not answer as it should", retry_after=1)
    if isinstance(error, OSError | asyncpg.PostgresError | asyncpg.InterfaceError):
        return DatabaseUnavailable("the database can't be reached", retry_after=1)
    return None


def _sqlstate(error: exc.DBAPIError) -> str:
    original = getattr(error, "driver_exception", None) or error.orig
    return getattr(original, "sqlstate", None) or ""


def _is_encoding_error(error: exc.DBAPIError) -> bool:
    """What asyncpg finds before it asks the server has no SQLSTATE, but a plain cause."""
    cause: BaseException | None = error.orig
    while cause is not None:
        if isinstance(cause, ValueError | TypeError | OverflowError | asyncpg.DataError):
            return True
        cause = cause.__cause__
    return False
