"""Phase 3's write: log rows, and what their insertion entails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Uuid, select, update

from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import RowRefused, StaccatoError
from generation.store import tables
from generation.store.documents import as_document, insert_from, rows_of
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CTE, Executable
    from sqlalchemy.sql.dml import ReturningInsert
    from sqlalchemy.sql.selectable import TableValuedAlias

    from generation.database.engine import Database
    from generation.records import KeyedRow
    from generation.store.tables import Tables
    from generation.store.usage import UsageLogs

logger = throttled_logger(__name__)

BOUNDS = Bounds(batch_rows=500, batch_bytes=8 * MIB, queue_rows=100_000, queue_bytes=1024 * MIB)
_FIXED_BYTES = 1000  # of a row, beside its four long texts


def size_of(keyed: KeyedRow) -> int:
    """Returns about how many bytes a row takes in memory and on the wire."""
    row = keyed.row
    return _FIXED_BYTES + len(row.prompt) + len(row.system) + len(row.result) + len(row.raw_reply)


class Logs:
    """Inserts rows, many in one statement."""

    def __init__(self, database: Database, usage: UsageLogs) -> None:
        self._database = database
        self._usage = usage
        known = tables.load()
        self._statement = _insert(known, _given_rows(known))
        self._keyed_statement = _insert_and_complete(known)
        self._inserts: Batcher[KeyedRow, None] = Batcher(
            "write", self._insert_batch, BOUNDS, weigh=size_of
        )
        # Apart, so that no row without a key waits for the lock of another row's key.
        self._keyed_inserts: Batcher[KeyedRow, None] = Batcher(
            "keyed write", self._insert_keyed_batch, BOUNDS, weigh=size_of
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._inserts, self._keyed_inserts)

    def insert(self, keyed: KeyedRow) -> asyncio.Future[None]:
        """Returns a future that is done when the row is committed, or was there before.

        The future raises `DatabaseUnavailable` or `RowRefused`; cancelling it takes the row back
        unless its flush has begun. Raises `DatabaseUnavailable` when the queue is full.
        """
        batcher = self._inserts if keyed.claim is None else self._keyed_inserts
        return batcher.submit(keyed)

    async def ping(self) -> None:
        """Inserts no rows. Raises `DatabaseUnavailable` if a row could not be stored now."""
        await self._database.run(self._statement, {"rows": as_document([])})

    async def _insert_batch(self, batch: Sequence[KeyedRow]) -> list[None]:
        return await self._run(self._statement, batch, {})

    async def _insert_keyed_batch(self, batch: Sequence[KeyedRow]) -> list[None]:
        claims = [
            {
                "log_id": keyed.row.id,
                "user_id": keyed.claim.user_id,
                "key": keyed.claim.key,
                "token": keyed.claim.token,
            }
            for keyed in batch
            if keyed.claim is not None and keyed.row.status == "succeeded"
        ]
        return await self._run(self._keyed_statement, batch, {"claims": claims})

    async def _run(
        self,
        statement: Executable,
        batch: Sequence[KeyedRow],
        more: Mapping[str, Sequence[object]],
    ) -> list[None]:
        rows = [keyed.row for keyed in batch]
        try:
            documents = {name: as_document(each) for name, each in {"rows": rows, **more}.items()}
            inserted = await self._database.run(statement, documents)
        except StaccatoError:
            raise
        except Exception as bug:
            # Refused, so that the neighbours are stored and the row is set aside, not lost.
            logger.exception("rows could not be inserted because of a bug")
            raise RowRefused(f"a bug keeps the row from PostgreSQL ({type(bug).__name__})") from bug
        new = {row.id for row in inserted}
        for row in rows:
            if row.id in new and row.status == "succeeded":
                self._usage.record(row)
        return [None] * len(rows)


def _given_rows(tables: Tables) -> TableValuedAlias:
    return rows_of("rows", tables.generation_log, tables.generation_log.c.keys())


def _insert(tables: Tables, rows: TableValuedAlias | CTE) -> ReturningInsert[Any]:
    """Returns the ids of the rows that were not there before: only these entail anything."""
    log = tables.generation_log
    return (
        insert_from(rows, log, log.c.keys())
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(log.c.id)
    )


def _insert_and_complete(tables: Tables) -> Executable:
    """Insert rows and complete their idempotency keys, in one statement and so one commit.

    A key is completed by the claim that holds it now: an owner whose lease has passed to another
    stores its row and no more. Keys are locked in order, as claims lock them.
    """
    keys = tables.idempotency_key
    rows = select(_given_rows(tables)).cte("rows")
    claims = select(rows_of("claims", keys, ("user_id", "key", "log_id"), token=Uuid())).cte(
        "claims"
    )
    logged = _insert(tables, rows).cte("logged")
    owned = (
        select(keys.c.id, logged.c.id.label("log_id"))
        .join(claims, (claims.c.user_id == keys.c.user_id) & (claims.c.key == keys.c.key))
        .join(logged, logged.c.id == claims.c.log_id)
        .where(keys.c.claim == claims.c.token)
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
