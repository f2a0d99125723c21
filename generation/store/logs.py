"""The SQL of phases 1 and 3. Each function borrows a connection, runs one statement, returns."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import orjson
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Interval,
    String,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from generation.database.batching import Batcher, Bounds
from generation.database.sqlstate import is_lost
from generation.errors import DatabaseUnavailable, RowRefused, StaccatoError, UnknownUser
from generation.records import GenerationRequest, LogRow, Profile, UsageRow
from generation.store import tables
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from sqlalchemy import CTE, ColumnClause, Executable, Table
    from sqlalchemy.dialects.postgresql import Insert
    from sqlalchemy.sql.dml import ReturningInsert
    from sqlalchemy.sql.selectable import TableValuedAlias
    from sqlalchemy.types import TypeEngine

    from generation.conf import Settings
    from generation.database.engine import Database

logger = throttled_logger(__name__)
Result = TypeVar("Result")

_MIB = 1024 * 1024
LEASE_SLACK_S = 15.0  # beyond the longest time that a request may take
READ_BOUNDS = Bounds(batch_rows=500, batch_bytes=_MIB, queue_rows=100_000, queue_bytes=64 * _MIB)
WRITE_BOUNDS = Bounds(
    batch_rows=500, batch_bytes=8 * _MIB, queue_rows=100_000, queue_bytes=1024 * _MIB
)
USAGE_BOUNDS = Bounds(batch_rows=1000, batch_bytes=_MIB, queue_rows=20_000, queue_bytes=8 * _MIB)

USAGE_LINGER_S = 0.2


def _select_profiles() -> Executable:
    """Profiles of active users whose ids are in the parameter `ids` (bigint[])."""
    profile = tables.profile
    # Compared as bigint whatever the user's key is, so that no id is out of the driver's range.
    ids = bindparam("ids", type_=ARRAY(BigInteger))
    statement = (
        select(
            profile.c.user_id,
            profile.c.prompt_template,
            profile.c.system,
            profile.c.provider,
            profile.c.model,
            profile.c.max_tokens,
        )
        .join(tables.user, tables.user_key == profile.c.user_id)
        .where(profile.c.user_id == any_(ids))
    )
    if tables.user_active is not None:
        statement = statement.where(tables.user_active)
    return statement


def given(table: Table, names: Sequence[str], **more: TypeEngine[Any]) -> TableValuedAlias:
    """The rows of the one parameter `rows`, a JSON document; see `as_document()`.

    So one statement text serves every batch size, and the driver encodes one value instead of
    one for each column of each row. Text comes in whole; what is too long, a cast cuts.
    """
    types: dict[str, TypeEngine[Any]] = {name: table.c[name].type for name in names} | more
    columns: list[ColumnClause[Any]] = [
        column(name, Text() if isinstance(kind, String) else kind) for name, kind in types.items()
    ]
    document = cast(bindparam("rows", type_=Text()), JSON)
    rows = func.json_to_recordset(document).table_valued(*columns, name="given")
    return rows.render_derived(with_types=True)


def as_document(rows: Sequence[object]) -> dict[str, str]:
    """The parameter of `given()`: dataclasses or dicts; what is no column is passed over."""
    return {"rows": orjson.dumps(rows, default=str).decode()}


def _insert_from(rows: TableValuedAlias | CTE, table: Table, names: Sequence[str]) -> Insert:
    values = [cast(rows.c[name], table.c[name].type) for name in names]
    return insert(table).from_select(list(names), select(*values))


_PROFILES = _select_profiles()
_LOG_COLUMNS = tuple(tables.generation_log.c.keys())
_USAGE_COLUMNS = tuple(UsageRow.__dataclass_fields__)


def _insert_logs(rows: TableValuedAlias | CTE) -> ReturningInsert[Any]:
    """Returns the ids of the rows that were not there before: what a row entails hangs on it."""
    return (
        _insert_from(rows, tables.generation_log, _LOG_COLUMNS)
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(tables.generation_log.c.id)
    )


def _insert_keyed_logs() -> Executable:
    """Insert rows and complete their idempotency keys, in one statement and so one commit.

    A key is completed by the claim that holds it now: an owner whose lease has passed to
    another stores its row and no more. Keys are locked in order, as claims lock them.
    """
    keys = tables.idempotency_key
    rows = select(
        given(tables.generation_log, _LOG_COLUMNS, idempotency_key=Text(), claim=Uuid())
    ).cte("rows")
    logged = _insert_logs(rows).cte("logged")
    owned = (
        select(keys.c.id, logged.c.id.label("log_id"))
        .join(rows, (rows.c.user_id == keys.c.user_id) & (rows.c.idempotency_key == keys.c.key))
        .join(logged, logged.c.id == rows.c.id)
        .where((keys.c.claim == rows.c.claim) & (rows.c.status == "succeeded"))
        .order_by(keys.c.user_id, keys.c.key)
        .with_for_update(of=keys)
        .cte("owned")
    )
    completed = (
        update(keys)
        .where(keys.c.id == owned.c.id)
        .values(log_id=owned.c.log_id)
        .returning(keys.c.id)
        .cte("completed")
    )
    return select(logged.c.id).add_cte(completed)


def _renew_leases() -> Executable:
    """Keep keys for their claims while the rows that will complete them can't be stored."""
    keys = tables.idempotency_key
    held = select(given(keys, ("user_id", "claim"), idempotency_key=Text())).cte("held")
    owned = (
        select(keys.c.id)
        .join(held, (held.c.user_id == keys.c.user_id) & (held.c.idempotency_key == keys.c.key))
        .where((keys.c.claim == held.c.claim) & keys.c.log_id.is_(None))
        .order_by(keys.c.user_id, keys.c.key)
        .with_for_update(of=keys)
        .cte("owned")
    )
    return (
        update(keys)
        .where(keys.c.id == owned.c.id)
        .values(leased_until=func.now() + bindparam("lease", type_=Interval))
    )


_RENEW_LEASES = _renew_leases()
_INSERT_LOGS = _insert_logs(given(tables.generation_log, _LOG_COLUMNS))
_INSERT_KEYED_LOGS = _insert_keyed_logs()
_INSERT_USAGE = _insert_from(
    given(tables.usage_log, _USAGE_COLUMNS), tables.usage_log, _USAGE_COLUMNS
)
_MAKE_IDENTITY = (
    insert(tables.deployment).values(id=1, identity=bindparam("identity")).on_conflict_do_nothing()
)
_IDENTITY = select(tables.deployment.c.identity, func.current_database())


class Store:
    """Reads profiles and inserts rows, batched."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        longest = settings.db_pool_timeout + settings.llm_timeout + settings.write_timeout
        self.lease = timedelta(seconds=longest + LEASE_SLACK_S)  # of an idempotency key
        self._reads: Batcher[int, Profile | None] = Batcher(
            "read", self._read_profiles, READ_BOUNDS
        )
        self._writes: Batcher[LogRow, None] = Batcher("write", self._insert_logs, WRITE_BOUNDS)
        # Apart, so that no row waits for the lock of another's key.
        self._keyed_writes: Batcher[LogRow, None] = Batcher(
            "keyed write", self._insert_keyed_logs, WRITE_BOUNDS
        )
        # Nobody waits for these, so they may.
        self._usage: Batcher[UsageRow, None] = Batcher(
            "usage", self._insert_usage, USAGE_BOUNDS, linger_s=USAGE_LINGER_S
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (
            self._reads,
            self._writes,
            self._keyed_writes,
            self._usage,
        )

    async def read_profile(self, request: GenerationRequest) -> Profile:
        """Phase 1. Raises `UnknownUser`, or `DatabaseUnavailable` within DB_POOL_TIMEOUT of
        the request's arrival."""
        profile = await self.within(request, self._reads.submit(request.user_id, 8))
        if profile is None:
            raise UnknownUser(f"user {request.user_id} does not exist or has no prompt")
        return profile

    async def within(self, request: GenerationRequest, result: Awaitable[Result]) -> Result:
        """A result of the database, if it comes within DB_POOL_TIMEOUT of the request's arrival.

        Raises `DatabaseUnavailable`.
        """
        limit = self._settings.db_pool_timeout
        try:
            async with asyncio.timeout(limit - (time.monotonic() - request.started)):
                return await result
        except TimeoutError:
            raise DatabaseUnavailable(
                f"the database did not answer within {limit:g} s", retry_after=1
            ) from None

    def insert(self, row: LogRow) -> asyncio.Future[None]:
        """Phase 3: done when the row is committed, or was there before.

        The future raises `DatabaseUnavailable` or `RowRefused`; cancelling it takes the row
        back unless its flush has begun. Raises `DatabaseUnavailable` when the queue is full.
        """
        batcher = self._keyed_writes if row.claim else self._writes
        return batcher.submit(row, self.size(row))

    async def renew_leases(self, rows: Sequence[LogRow]) -> None:
        """Keep the keys that these rows will complete. Raises `DatabaseUnavailable`."""
        owners = [row for row in rows if row.claim and row.status == "succeeded"]
        if not owners:
            return
        await self._database.run(_RENEW_LEASES, as_document(owners) | {"lease": self.lease})

    @staticmethod
    def size(row: LogRow) -> int:
        """About how many bytes a row takes in memory and on the wire."""
        return 1000 + len(row.prompt) + len(row.system) + len(row.result) + len(row.raw_reply)

    async def ping(self) -> None:
        """Insert no row. Raises `DatabaseUnavailable` where none could be stored now."""
        await self._database.run(_INSERT_LOGS, as_document([]))

    async def identify(self) -> str:
        """What tells this database from others: a UUID of its own, and its name."""
        await self._database.run(_MAKE_IDENTITY, {"identity": uuid4()})
        ((identity, name),) = await self._database.run(_IDENTITY)
        return f"{identity}-{name}"

    async def _read_profiles(self, user_ids: Sequence[int]) -> list[Profile | None]:
        try:
            found = await self._select_profiles(user_ids)
        except DatabaseUnavailable as error:
            if not is_lost(error):
                raise
            # A stale connection is no news for the caller: once more, on another.
            found = await self._select_profiles(user_ids)
        return [found.get(user_id) for user_id in user_ids]

    async def _select_profiles(self, user_ids: Sequence[int]) -> dict[int, Profile]:
        rows = await self._database.run(_PROFILES, {"ids": list(set(user_ids))})
        return {row[0]: Profile(*row) for row in rows}

    async def _insert_logs(self, rows: Sequence[LogRow]) -> list[None]:
        return await self._insert(_INSERT_LOGS, rows)

    async def _insert_keyed_logs(self, rows: Sequence[LogRow]) -> list[None]:
        return await self._insert(_INSERT_KEYED_LOGS, rows)

    async def _insert(self, statement: Executable, rows: Sequence[LogRow]) -> list[None]:
        try:
            inserted = await self._database.run(statement, as_document(rows))
        except StaccatoError:
            raise
        except Exception as bug:
            # Refused, so that the neighbours are stored and the row is set aside, not lost.
            logger.exception("rows could not be inserted because of a bug")
            raise RowRefused(f"a bug keeps the row from PostgreSQL ({type(bug).__name__})") from bug
        new = {row.id for row in inserted}
        for row in rows:
            if row.id in new and row.status == "succeeded":
                self._record_usage(row)
        return [None] * len(rows)

    def _record_usage(self, row: LogRow) -> None:
        """Fire and forget: a failure is counted and touches no answer."""
        usage = UsageRow(row.user_id, row.total_tokens or 0, row.latency_ms, row.created_at)
        try:
            self._usage.submit(usage, 64)
        except DatabaseUnavailable:
            metrics.USAGE_LOGS_LOST.inc()

    async def _insert_usage(self, rows: Sequence[UsageRow]) -> list[None]:
        try:
            await self._database.run(_INSERT_USAGE, as_document(rows))
        except StaccatoError as error:
            metrics.USAGE_LOGS_LOST.inc(len(rows))
            logger.warning("usage logs are not stored: %s", error)  # the counter has the number
        return [None] * len(rows)
