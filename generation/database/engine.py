"""The hot path's engine. The recommended settings are the defaults in `conf/database.py`.

A connection is borrowed inside one function and returned before it ends; nothing here hands one
out for longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from sqlalchemy import URL, event, exc
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.util import greenlet_spawn

from generation.database import connecting, dsn, guard
from generation.database.pool import MeasuredPool
from generation.database.sqlstate import (
    READ_ONLY,
    is_lost,
    is_outdated_plan,
    sqlstate,
    to_staccato_error,
)
from generation.errors import DatabaseUnavailable
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Executable, Row
    from sqlalchemy.engine import ExceptionContext

    from generation.conf import Settings

    # Runs a statement with its parameters.
    Run = Callable[..., Awaitable[Sequence[asyncpg.Record]]]

logger = throttled_logger(__name__)
Result = TypeVar("Result")

LEAVE_AFTER_S = 1.0  # a connection to a read-only server is given up once it is this old
# PgBouncer gives each transaction another server connection, on which a statement prepared before
# is unknown or another's; without both caches each statement is parsed, bound and run in one go.
_UNPREPARED = {"prepared_statement_cache_size": 0, "statement_cache_size": 0}


class Database:
    """The hot path's access to PostgreSQL. Belongs to one process and one event loop."""

    def __init__(
        self, engine: AsyncEngine, address: str, *, wait_limit_s: float, strict: bool
    ) -> None:
        self.engine = engine
        self.address = address  # which database it is, without the password
        self._wait_limit_s = wait_limit_s
        self._strict = strict
        transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._sessions = async_sessionmaker(transactional, expire_on_commit=False)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, settings: Settings, django_database: Mapping[str, Any], *, strict: bool
    ) -> AsyncIterator[Database]:
        """Build the engine for an entry of Django's DATABASES.

        With `strict`, a connection held into the LLM call raises; else it is counted and logged.
        """
        target = dsn.from_django(django_database)
        is_direct = settings.db_pool_mode == "direct"
        engine = create_async_engine(
            URL.create("postgresql+asyncpg"),
            poolclass=MeasuredPool,
            pool_size=settings.db_pool_size,
            max_overflow=settings.db_max_overflow,
            pool_timeout=settings.db_pool_timeout,
            pool_recycle=settings.db_pool_recycle,
            # PgBouncer replaces its connections itself, and would have to lend one for each ping.
            pool_pre_ping=settings.db_pool_pre_ping and is_direct,
            echo=settings.db_echo,
            # The hot path runs single statements; set here, it costs nothing at each checkout.
            isolation_level="AUTOCOMMIT",
            connect_args={
                "async_creator_fn": partial(
                    connecting.connect,
                    target,
                    limit_s=settings.db_pool_timeout,
                    command_timeout=settings.db_command_timeout,
                ),
                **({} if is_direct else _UNPREPARED),
            },
        )
        if is_direct:  # PgBouncer keeps its own connections, whatever we do with ours
            event.listen(engine.sync_engine, "handle_error", _leave_a_demoted_server)
        try:
            yield cls(engine, target.address, wait_limit_s=settings.db_pool_timeout, strict=strict)
        finally:
            await engine.dispose()

    @property
    def pool(self) -> MeasuredPool:
        pool = self.engine.pool
        assert isinstance(pool, MeasuredPool)
        return pool

    async def run(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """Run one statement in a transaction of its own. Returns its rows.

        Borrows a connection and gives it back. Raises `DatabaseUnavailable` or `RowRefused`.
        """
        try:
            try:
                # One switch into SQLAlchemy's synchronous core instead of an AsyncConnection's
                # five: a quarter of what a statement costs.
                return await greenlet_spawn(self._run, statement, parameters)
            except exc.DBAPIError as error:
                if not is_outdated_plan(error):
                    raise
            return await greenlet_spawn(self._run, statement, parameters)
        except Exception as error:
            translated = to_staccato_error(error)
            if translated is None:
                raise
            raise translated from error

    async def read(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """Run a statement that only reads: once more, on another connection, if one was lost.

        The pool may hold a stale connection, of which the caller need not know.
        """
        try:
            return await self.run(statement, parameters)
        except DatabaseUnavailable as error:
            if not is_lost(error):
                raise
        return await self.run(statement, parameters)

    async def administer(self, sql: str, *, limit_s: float) -> None:
        """Run a statement on tables rather than rows, without a transaction around it.

        It may take longer than DB_COMMAND_TIMEOUT, and is cancelled after `limit_s`. Raises
        `DatabaseUnavailable` with PostgreSQL's own words.
        """
        with _translated(limit_s):
            async with self.engine.connect() as connection:
                raw = await connection.get_raw_connection()
                await raw.driver_connection.execute(sql, timeout=limit_s)  # type: ignore[union-attr]  # asyncpg's

    @contextlib.asynccontextmanager
    async def transaction(self, *, limit_s: float) -> AsyncIterator[Run]:
        """Several statements that see one moment of the database, and are done together or not.

        Gives a function that runs one, with PostgreSQL's own parameters, and returns its rows. A
        statement may take longer than DB_COMMAND_TIMEOUT, and is cancelled after `limit_s`. Raises
        `DatabaseUnavailable`, also if another transaction has changed a row that these change.
        """
        with _translated(limit_s):
            async with self.engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                async with driver.transaction(isolation="repeatable_read"):
                    yield partial(driver.fetch, timeout=limit_s)

    async def within(self, result: Awaitable[Result], *, since: float | None = None) -> Result:
        """Wait for a result of the database for at most DB_POOL_TIMEOUT.

        The time counts from now, or from `since` (`time.monotonic()`), e.g. a request's arrival.
        Raises `DatabaseUnavailable`, and cancels the result then.
        """
        limit_s = self._wait_limit_s
        passed_s = 0.0 if since is None else time.monotonic() - since
        try:
            async with asyncio.timeout(limit_s - passed_s):
                return await result
        except TimeoutError:
            logger.warning("the database did not answer within %g s", limit_s)
            raise DatabaseUnavailable(
                f"the database did not answer within {limit_s:g} s", retry_after=1
            ) from None

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

    @staticmethod
    def track() -> None:
        """Count, from here on, the connections that this task and its children hold."""
        guard.track()

    def no_connection_held(self) -> contextlib.AbstractContextManager[None]:
        """Guards the LLM call; see `guard.no_connection_held()`."""
        return guard.no_connection_held(strict=self._strict)


@contextlib.contextmanager
def _translated(limit_s: float) -> Iterator[None]:
    """Errors of statements for which nobody waits, with PostgreSQL's own words."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise DatabaseUnavailable(f"PostgreSQL refuses: {error}") from error
    except TimeoutError as error:
        raise DatabaseUnavailable(f"PostgreSQL did not do it in {limit_s:g} s") from error
    except Exception as error:
        translated = to_staccato_error(error)
        if translated is None:
            raise
        raise translated from error


def _leave_a_demoted_server(context: ExceptionContext) -> None:
    """Give up the pool's connections where the server has become a standby.

    Such a server keeps its connections and refuses their writes. New connections may lead to its
    successor; these would stay in use until DB_POOL_RECYCLE. A connection that is new itself shows
    that there is no successor yet; giving it up would open another one for each write.
    """
    error, connection = context.sqlalchemy_exception, context.connection
    # The connection is asked last: after another kind of error it may be gone.
    if isinstance(error, exc.DBAPIError) and sqlstate(error) == READ_ONLY and connection:
        age = perf_counter() - connection.info["opened_at"]
        context.is_disconnect = age > LEAVE_AFTER_S  # all of the pool's are replaced
