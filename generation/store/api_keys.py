"""The SQL of API keys: look them up, and record when they were last used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, DateTime, String, any_, bindparam, func, or_, select, update

from generation.database.batching import MIB, Batcher, Bounds
from generation.store import tables
from generation.store.documents import as_document, rows_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Executable, Row

    from generation.database.engine import Database
    from generation.records import UserKey
    from generation.store.tables import Tables

BOUNDS = Bounds(batch_rows=500, batch_bytes=MIB, queue_rows=20_000, queue_bytes=8 * MIB)
_PREFIX_BYTES = 32


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key that is not revoked, and whose owner may log in."""

    id: int
    prefix: str
    digest: str
    users: frozenset[UserKey] | None  # None: all
    is_service: bool  # not a single user's
    allowed_models: str
    expires_at: datetime | None
    log_content: str
    weight: int


class ApiKeys:
    """Finds keys, many in one statement."""

    def __init__(self, database: Database) -> None:
        self._database = database
        known = tables.load()
        self._find_statement = _find_statement(known)
        self._use_statement = _use_statement(known)
        self._lookups: Batcher[str, StoredKey | None] = Batcher(
            "key", self._find_batch, BOUNDS, weigh=lambda _prefix: _PREFIX_BYTES
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._lookups,)

    def find(self, prefix: str) -> asyncio.Future[StoredKey | None]:
        """Raises `DatabaseUnavailable`, as the future does."""
        return self._lookups.submit(prefix)

    async def record_use(self, used: Mapping[int, datetime]) -> None:
        """Store when keys were last used, by their ids. Raises `DatabaseUnavailable`."""
        rows = [{"id": key_id, "used_at": at} for key_id, at in used.items()]
        await self._database.run(self._use_statement, {"rows": as_document(rows)})

    async def _find_batch(self, prefixes: Sequence[str]) -> list[StoredKey | None]:
        rows = await self._database.read(self._find_statement, {"prefixes": list(set(prefixes))})
        found = {row.prefix: _stored_key(row) for row in rows}
        return [found.get(prefix) for prefix in prefixes]


def _stored_key(row: Row[Any]) -> StoredKey:
    users: frozenset[UserKey] | None
    if row.scope == "all":
        users = None
    elif row.scope == "users":
        users = frozenset(row.users or ())
    else:
        users = frozenset((row.user_id,))
    return StoredKey(
        id=row.id,
        prefix=row.prefix,
        digest=row.digest,
        users=users,
        is_service=row.scope != "user",
        allowed_models=row.allowed_models,
        expires_at=row.expires_at,
        log_content=row.log_content,
        weight=row.weight,
    )


def _find_statement(tables: Tables) -> Executable:
    """The keys with a prefix in the parameter `prefixes` that are not revoked."""
    key, key_user = tables.api_key, tables.api_key_user
    users = (
        select(func.array_agg(key_user.c.user_id))
        .where(key_user.c.apikey_id == key.c.id)
        .scalar_subquery()
        .label("users")
    )
    columns = ("id", "prefix", "digest", "scope", "user_id", "allowed_models", "expires_at")
    statement = (
        select(*(key.c[name] for name in columns), key.c.log_content, key.c.weight, users)
        .outerjoin(tables.user, tables.user.c.id == key.c.user_id)
        .where(key.c.prefix == any_(bindparam("prefixes", type_=ARRAY(String()))))
        .where(key.c.revoked_at.is_(None))
    )
    if tables.user_is_active is not None:
        # A user's key works only while the user may log in; a service's key has no user.
        statement = statement.where(or_(key.c.user_id.is_(None), tables.user_is_active))
    return statement


def _use_statement(tables: Tables) -> Executable:
    """Rows are locked in order; those that another process has locked are skipped, since that
    process writes them."""
    key = tables.api_key
    used = rows_of("rows", key, ("id",), used_at=DateTime(timezone=True))
    due = (
        select(key.c.id, used.c.used_at)
        .join(used, used.c.id == key.c.id)
        .where(or_(key.c.last_used_at.is_(None), key.c.last_used_at < used.c.used_at))
        .order_by(key.c.id)
        .with_for_update(of=key, skip_locked=True)
        .cte("due")
    )
    return update(key).where(key.c.id == due.c.id).values(last_used_at=due.c.used_at)
