"""The SQL of phases 1 and 3: the only speaker of SQL on the hot path.

Each function borrows a connection, runs one statement, and returns frozen records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import orjson
from sqlalchemy import ARRAY, BigInteger, Text, any_, bindparam, cast, func, select
from sqlalchemy.dialects import postgresql

from generation import metrics, tables
from generation.batching import Batcher, Bounds
from generation.database import is_lost
from generation.errors import DatabaseUnavailable, StaccatoError, UnknownUser
from generation.records import Attempt, GenerationRequest, LogRow, Profile, UsageRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Executable, Table

    from generation.conf import Settings
    from generation.database import Database

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024
READ_BOUNDS = Bounds(batch_rows=500, batch_bytes=_MIB, queue_rows=100_000, queue_bytes=64 * _MIB)
WRITE_BOUNDS = Bounds(
    batch_rows=500, batch_bytes=8 * _MIB, queue_rows=100_000, queue_bytes=1024 * _MIB
)
USAGE_BOUNDS = Bounds(batch_rows=1000, batch_bytes=_MIB, queue_rows=20_000, queue_bytes=8 * _MIB)


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


def _insert_rows(table: Table, names: Sequence[str]) -> postgresql.Insert:
    """`INSERT … SELECT FROM unnest($1, $2, …)`: one statement text for every batch size.

    Each parameter is the array of one column's values. JSON travels as text.
    """
    arrays = []
    for name in names:
        column = table.c[name]
        wire = Text() if isinstance(column.type, postgresql.JSONB) else column.type
        arrays.append(bindparam(name, type_=ARRAY(wire)))
    rows = func.unnest(*arrays).table_valued(*names, name="rows").render_derived()
    values = [cast(rows.c[name], table.c[name].type) for name in names]
    return postgresql.insert(table).from_select(list(names), select(*values))


_PROFILES = _select_profiles()
_LOG_COLUMNS = tuple(LogRow.__dataclass_fields__)
_USAGE_COLUMNS = tuple(UsageRow.__dataclass_fields__)
_INSERT_LOGS = (
    _insert_rows(tables.generation_log, _LOG_COLUMNS)
    .on_conflict_do_nothing(index_elements=["id"])
    .returning(tables.generation_log.c.id)
)
_INSERT_USAGE = _insert_rows(tables.usage_log, _USAGE_COLUMNS)


class Store:
    """Reads profiles and writes rows, batched."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._reads: Batcher[int, Profile | None] = Batcher(
            "read", self._read_profiles, READ_BOUNDS
        )
        self._writes: Batcher[LogRow, UUID] = Batcher("write", self._write_logs, WRITE_BOUNDS)
        self._usage: Batcher[UsageRow, None] = Batcher("usage log", self._write_usage, USAGE_BOUNDS)
        self.batchers = (self._reads, self._writes, self._usage)

    async def read_profile(self, request: GenerationRequest) -> Profile:
        """Phase 1. Raises `UnknownUser`, or `DatabaseUnavailable` within DB_POOL_TIMEOUT of
        the request's arrival."""
        left = self._settings.db_pool_timeout - (time.monotonic() - request.started)
        try:
            async with asyncio.timeout(left):
                profile = await self._reads.submit(request.user_id, 8)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"the database did not answer within {self._settings.db_pool_timeout:g} s",
                retry_after=1,
            ) from None
        if profile is None:
            raise UnknownUser(f"user {request.user_id} does not exist or has no prompt")
        return profile

    async def write_log(self, row: LogRow) -> None:
        """Phase 3: returns when the row is committed.

        Raises `DatabaseUnavailable` after WRITE_TIMEOUT; the row stays queued all the same.
        """
        written = self._writes.submit(row, _size(row))
        try:
            async with asyncio.timeout(self._settings.write_timeout):
                await asyncio.shield(written)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"the answer was not stored within {self._settings.write_timeout:g} s",
                retry_after=1,
            ) from None

    def record_usage(self, row: UsageRow) -> None:
        """Fire and forget: a failure is counted and touches no answer."""
        try:
            self._usage.submit(row, 64)
        except DatabaseUnavailable:
            metrics.USAGE_LOGS_LOST.inc()

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
        async with self._database.connect() as connection:
            rows = await connection.execute(_PROFILES, {"ids": list(set(user_ids))})
            return {row[0]: Profile(*row) for row in rows}

    async def _write_logs(self, rows: Sequence[LogRow]) -> list[UUID]:
        columns = {name: [getattr(row, name) for row in rows] for name in _LOG_COLUMNS}
        columns["attempts"] = [_attempts_as_json(row.attempts) for row in rows]
        async with self._database.connect() as connection:
            await connection.execute(_INSERT_LOGS, columns)
        return [row.id for row in rows]

    async def _write_usage(self, rows: Sequence[UsageRow]) -> list[None]:
        columns = {name: [getattr(row, name) for row in rows] for name in _USAGE_COLUMNS}
        try:
            async with self._database.connect() as connection:
                await connection.execute(_INSERT_USAGE, columns)
        except StaccatoError as error:
            metrics.USAGE_LOGS_LOST.inc(len(rows))
            logger.warning("%d usage logs were not stored: %s", len(rows), error)
        return [None] * len(rows)


def _attempts_as_json(attempts: Sequence[Attempt]) -> str:
    return orjson.dumps(attempts).decode()


def _size(row: LogRow) -> int:
    """About how many bytes a row takes in memory and on the wire."""
    return 500 + len(row.prompt) + len(row.system) + len(row.result) + len(row.raw_reply)
