"""API keys in PostgreSQL: found once, remembered for half a minute."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, DateTime, String, any_, bindparam, func, or_, select, update

from generation.api_keys import tokens as credentials
from generation.database.batching import Batcher, Bounds
from generation.database.sqlstate import is_lost
from generation.errors import DatabaseUnavailable, Unauthorized
from generation.models import ApiKey
from generation.records import Grant
from generation.store import tables
from generation.store.logs import as_document, given

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Executable, Row

    from generation.conf import Settings
    from generation.database.engine import Database

logger = logging.getLogger(__name__)

KEPT_S = 30.0  # a revoked key works no longer than this
REFRESH_S = 20.0  # older ones are looked up again while they are still answered from memory
KNOWN_MAX = 10_000
UNKNOWN_MAX = 10_000
RECORD_USE_S = 60.0
BOUNDS = Bounds(
    batch_rows=500, batch_bytes=1024 * 1024, queue_rows=20_000, queue_bytes=8 * 1024 * 1024
)
_SIZE = 32
_REACH = ApiKey._meta.get_field("users").m2m_reverse_name()  # noqa: SLF001  # the user's column


@dataclass(frozen=True, slots=True)
class Known:
    """A row, as far as a request's fate hangs on it."""

    digest: str
    expires_at: datetime | None
    grant: Grant


def _find_statement() -> Executable:
    """The keys with a prefix in the parameter `prefixes` that are not revoked."""
    key, reach = tables.api_key, tables.api_key_user
    users = (
        select(func.array_agg(reach.c[_REACH]))
        .where(reach.c.apikey_id == key.c.id)
        .scalar_subquery()
        .label("users")
    )
    columns = ("id", "prefix", "digest", "scope", "user_id", "allowed_models", "expires_at")
    statement = (
        select(*(key.c[name] for name in columns), users)
        .outerjoin(tables.user, tables.user_key == key.c.user_id)
        .where(key.c.prefix == any_(bindparam("prefixes", type_=ARRAY(String()))))
        .where(key.c.revoked_at.is_(None))
    )
    if tables.user_active is not None:
        # Nobody's key works while its owner may not log in.
        statement = statement.where(or_(key.c.user_id.is_(None), tables.user_active))
    return statement


def _use_statement() -> Executable:
    """Rows are locked in order, and rows that another process works on are its business."""
    key = tables.api_key
    used = given(key, ("id",), used_at=DateTime(timezone=True))
    due = (
        select(key.c.id, used.c.used_at)
        .join(used, used.c.id == key.c.id)
        .where(or_(key.c.last_used_at.is_(None), key.c.last_used_at < used.c.used_at))
        .order_by(key.c.id)
        .with_for_update(of=key, skip_locked=True)
        .cte("due")
    )
    return update(key).where(key.c.id == due.c.id).values(last_used_at=due.c.used_at)


_FIND = _find_statement()
_USE = _use_statement()


class Keys:
    """The API keys that one process has seen lately."""

    def __init__(
        self, database: Database, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._patience = settings.db_pool_timeout
        self._clock = clock
        # Apart, so that guesses push out no key that is in use.
        self._known = Recent(KNOWN_MAX, clock)
        self._unknown = Recent(UNKNOWN_MAX, clock)
        self._asked: dict[str, asyncio.Future[Known | None]] = {}
        self._used: dict[int, datetime] = {}
        self._lookups: Batcher[str, Known | None] = Batcher("key", self._find, BOUNDS)
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._lookups,)

    async def recognise(self, text: str) -> Grant:
        """What the key allows. Raises `Unauthorized` or `DatabaseUnavailable`."""
        prefix = credentials.prefix_of(text)
        if prefix is None:
            raise Unauthorized("the API key does not have the form of one")
        known = await self._look_up(prefix)
        now = datetime.now(UTC)
        if not credentials.matches(text, known.digest if known else None) or known is None:
            raise Unauthorized("the API key is unknown or revoked")
        if known.expires_at is not None and known.expires_at <= now:
            raise Unauthorized("the API key has expired")
        if known.grant.key_id is not None:
            self._used[known.grant.key_id] = now
        return known.grant

    async def record_use(self) -> None:
        """Write down when keys were last used. Raises `DatabaseUnavailable`."""
        used, self._used = self._used, {}
        if not used:
            return
        rows = [{"id": key_id, "used_at": at} for key_id, at in used.items()]
        try:
            await self._database.run(_USE, as_document(rows))
        except BaseException:
            self._used = used | self._used
            raise

    async def _look_up(self, prefix: str) -> Known | None:
        for recent in (self._known, self._unknown):
            found = recent.get(prefix)
            if found is not None:
                known, age = found
                if age > REFRESH_S and prefix not in self._asked:
                    self._refresh(prefix)
                return known
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(self._asked.get(prefix) or self._ask(prefix))
        except TimeoutError:
            raise DatabaseUnavailable(
                f"the database did not answer within {self._patience:g} s", retry_after=1
            ) from None

    def _refresh(self, prefix: str) -> None:
        try:
            self._ask(prefix)
        except DatabaseUnavailable as error:  # it will be waited for when it is too old
            logger.debug("not refreshed: %s", error)

    def _ask(self, prefix: str) -> asyncio.Future[Known | None]:
        at = self._clock()
        future = self._lookups.submit(prefix, _SIZE)
        self._asked[prefix] = future
        future.add_done_callback(lambda done: self._learn(prefix, at, done))
        return future

    def _learn(self, prefix: str, at: float, done: asyncio.Future[Known | None]) -> None:
        del self._asked[prefix]
        if done.cancelled() or done.exception() is not None:
            return
        known = done.result()
        learnt, other = (
            (self._known, self._unknown) if known is not None else (self._unknown, self._known)
        )
        learnt.put(prefix, known, at)
        other.forget(prefix)

    async def _find(self, prefixes: Sequence[str]) -> list[Known | None]:
        try:
            found = await self._select(prefixes)
        except DatabaseUnavailable as error:
            if not is_lost(error):
                raise
            found = await self._select(prefixes)
        return [found.get(prefix) for prefix in prefixes]

    async def _select(self, prefixes: Sequence[str]) -> dict[str, Known]:
        rows = await self._database.run(_FIND, {"prefixes": list(set(prefixes))})
        return {row.prefix: _read(row) for row in rows}


class Recent:
    """What was learnt within the last `KEPT_S`, of so many keys at most."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[str, tuple[Known | None, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, prefix: str) -> tuple[Known | None, float] | None:
        """With its age in seconds; None for what is not there or too old."""
        entry = self._entries.get(prefix)
        if entry is None:
            return None
        known, at = entry
        age = self._clock() - at
        if age >= KEPT_S:
            del self._entries[prefix]
            return None
        return known, age

    def put(self, prefix: str, known: Known | None, at: float) -> None:
        self._entries[prefix] = (known, at)
        self._entries.move_to_end(prefix)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def forget(self, prefix: str) -> None:
        self._entries.pop(prefix, None)


def _read(row: Row[Any]) -> Known:
    users: frozenset[int] | None
    if row.scope == ApiKey.Scope.ALL:
        users = None
    elif row.scope == ApiKey.Scope.USERS:
        users = frozenset(row.users or ())
    else:
        users = frozenset((row.user_id,))
    try:
        targets = credentials.parse_targets(row.allowed_models)
    except ValueError:
        # Written past the forms. Nothing is allowed then, rather than everything.
        logger.error("the API key %s names models that can't be read", row.prefix)  # noqa: TRY400
        targets = (("", "-"),)
    return Known(
        digest=row.digest,
        expires_at=row.expires_at,
        grant=Grant(row.id, users, targets, is_service=row.scope != ApiKey.Scope.USER),
    )
