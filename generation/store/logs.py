"""Phase 3's write: log rows and their texts, and what their insertion entails."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Uuid,
    case,
    cast,
    column,
    false,
    func,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from generation.database.batching import MIB, Batcher, Bounds
from generation.effects import size_of as effects_size
from generation.errors import PartitionMissing, RowRefused, StaccatoError
from generation.partitions.intervals import day_number
from generation.records import LogRow
from generation.store import tables
from generation.store.documents import Sparse, as_document, rows_of, values_of
from generation.store.effects import EffectCtes, document_name, documents_of
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import CTE, ColumnElement, Executable

    from generation.database.engine import Database
    from generation.effects import Shape
    from generation.records import KeyedRow
    from generation.store.tables import Tables
    from generation.store.usage import UsageLogs

logger = throttled_logger(__name__)

BOUNDS = Bounds(batch_rows=500, batch_bytes=8 * MIB, queue_rows=100_000, queue_bytes=1024 * MIB)
_FIXED_BYTES = 1000  # of a row, beside its long texts and the caller's metadata
_MS_PER_S = 1000
SHAPES = 200  # statements with effects that are kept
# The log's columns of which callers choose the words, and each one's empty value as SQL.
WRITTEN_BY_CALLERS = {"request_id": "''", "trace_id": "''", "metadata": "'{}'"}

_SPARSE = Sparse(LogRow)


def size_of(keyed: KeyedRow) -> int:
    """Returns about how many bytes a row takes in memory and on the wire."""
    row = keyed.row
    texts = len(row.prompt) + len(row.system) + len(row.result) + len(row.raw_reply)
    texts += len(row.conversation) + len(row.blocks)
    if row.metadata:
        texts += sum(len(name) + len(value) for name, value in row.metadata.items())
    if keyed.effects:
        texts += effects_size(keyed.effects)
    return _FIXED_BYTES + texts


class Logs:
    """Inserts rows, many in one statement.

    A row that is older than its retention, by the database's clock, is not stored but counted.
    """

    def __init__(
        self, database: Database, usage: UsageLogs, *, kept: timedelta, bodies_kept: timedelta
    ) -> None:
        self._database = database
        self._usage = usage
        statements = _Statements(tables.load(), kept, bodies_kept)
        self._statements = {
            (is_keyed, is_charged): statements.insert(keyed=is_keyed, charged=is_charged)
            for is_keyed in (False, True)
            for is_charged in (False, True)
        }
        self._inserts: Batcher[KeyedRow, None] = Batcher(
            "write", self._insert_batch, BOUNDS, weigh=size_of
        )
        # Apart, so that no row without a key waits for the lock of another row's key.
        self._keyed_inserts: Batcher[KeyedRow, None] = Batcher(
            "keyed write", self._insert_batch, BOUNDS, weigh=size_of
        )
        # Apart, so that what a project's own tables take delays no other row.
        self._effect_inserts: Batcher[KeyedRow, None] = Batcher(
            "write with effects", self._insert_batch, BOUNDS, weigh=size_of
        )
        self._statement_with = lru_cache(SHAPES)(statements.insert_with)
        self.batchers: tuple[Batcher[Any, Any], ...] = (
            *(self._inserts, self._keyed_inserts, self._effect_inserts),
        )

    def insert(self, keyed: KeyedRow) -> asyncio.Future[None]:
        """Returns a future that is done when the row is committed, or was there before, or is
        older than its retention.

        The future raises `DatabaseUnavailable` or `RowRefused`; cancelling it takes the row back
        unless its flush has begun. Raises `DatabaseUnavailable` when the queue is full.
        """
        if keyed.effects:
            return self._effect_inserts.submit(keyed)
        batcher = self._inserts if keyed.claim is None else self._keyed_inserts
        return batcher.submit(keyed)

    async def ping(self) -> None:
        """Inserts no rows. Raises `DatabaseUnavailable` if a row could not be stored now."""
        await self._database.run(self._statements[False, False], {"rows": as_document([])})

    async def _insert_batch(self, batch: Sequence[KeyedRow]) -> list[StaccatoError | None]:
        try:
            await self._store(batch)
        except PartitionMissing as missing:
            return await self._insert_by_day(batch, missing)
        return [None] * len(batch)

    async def _insert_by_day(
        self, batch: Sequence[KeyedRow], missing: PartitionMissing
    ) -> list[StaccatoError | None]:
        """Rows of one day have the same partitions, or lack them together."""
        days: defaultdict[int, list[KeyedRow]] = defaultdict(list)
        for keyed in batch:
            days[day_number(keyed.row.id)].append(keyed)
        if len(days) == 1:
            return [missing] * len(batch)
        lacking: dict[int, StaccatoError] = {}
        for day, rows in days.items():
            try:
                await self._store(rows)
            except PartitionMissing as error:
                lacking[day] = error
        return [lacking.get(day_number(keyed.row.id)) for keyed in batch]

    async def _store(self, batch: Sequence[KeyedRow]) -> None:
        """Raises `DatabaseUnavailable`, e.g. `PartitionMissing`, or `RowRefused`."""
        if batch[0].effects:  # as in all rows of a batch
            await self._store_with_effects(batch)
            return
        is_keyed = batch[0].claim is not None
        more = {"claims": _claims_of(batch)} if is_keyed else {}
        await self._run(self._statements[is_keyed, _is_charged(batch)], batch, more)

    async def _store_with_effects(self, batch: Sequence[KeyedRow]) -> None:
        """A statement for all rows whose effects have the same shapes."""
        alike: defaultdict[tuple[Shape, ...], list[KeyedRow]] = defaultdict(list)
        for keyed in batch:
            alike[tuple(sorted({effect.shape for effect in keyed.effects}))].append(keyed)
        for shapes, rows in alike.items():
            try:
                statement = self._statement_with(shapes, charged=_is_charged(rows))
            except LookupError as error:
                raise RowRefused(f"an effect is for a table that is gone: {error}") from error
            documents = {"claims": _claims_of(rows), **documents_of(rows, shapes)}
            await self._run(statement, rows, documents)

    async def _run(
        self,
        statement: Executable,
        batch: Sequence[KeyedRow],
        more: Mapping[str, Sequence[object]],
    ) -> None:
        rows = [keyed.row for keyed in batch]
        try:
            given = {"rows": [_SPARSE.members(row) for row in rows], **more}
            documents = {name: as_document(each) for name, each in given.items()}
            found = await self._database.run(statement, documents)
        except StaccatoError:
            raise
        except Exception as bug:
            # Refused, so that the neighbours are stored and the row is set aside, not lost.
            logger.exception("rows could not be inserted because of a bug")
            raise RowRefused(f"a bug keeps the row from PostgreSQL ({type(bug).__name__})") from bug
        new = {row.id for row in found if not row.is_expired}
        if expired := len(found) - len(new):
            metrics.EXPIRED_ROWS.inc(expired)
            logger.warning("%d rows are older than the log's retention: not stored", expired)
        for row in rows:
            if row.id in new and _is_spent(row):
                self._usage.record(row)


def _is_charged(batch: Sequence[KeyedRow]) -> bool:
    return any(keyed.row.charges for keyed in batch)


def _claims_of(batch: Sequence[KeyedRow]) -> list[dict[str, Any]]:
    """Returns the claims that the rows complete."""
    return [
        {
            "log_id": keyed.row.id,
            "user_id": keyed.claim.user_id,
            "key": keyed.claim.key,
            "token": keyed.claim.token,
        }
        for keyed in batch
        if keyed.claim is not None and keyed.row.status == "succeeded"
    ]


def _is_spent(row: LogRow) -> bool:
    """Whether a user has used something: an answer, or a part of one that came as a stream."""
    if row.user_id is None:
        return False
    return row.status == "succeeded" or (row.is_streamed and row.output_tokens is not None)


class _Statements:
    """All return the ids of the rows that were not there before, as only these entail anything,
    and the ids of those that are older than their retention.
    """

    def __init__(self, known: Tables, kept: timedelta, bodies_kept: timedelta) -> None:
        self._known = known
        self._kept = kept
        self._bodies_kept = bodies_kept
        log, body = known.generation_log, known.generation_body
        self._log_columns = [each.key for each in log.c if each.key != "stored_at"]
        self._body_columns = [each.key for each in body.c]
        texts = {each.key: each.type for each in body.c if each.key != "id"}
        forgotten = known.forgotten_user.c.user_id
        given = rows_of("rows", log, self._log_columns, author_id=forgotten.type, **texts)

        # One probe of an index for each row: for EXISTS, PostgreSQL reads all tombstones into a
        # hash table in each statement, which takes 3 ms for 10,000.
        def has_tombstone(user: ColumnElement[Any]) -> ColumnElement[bool]:
            return select(true()).where(forgotten == user).scalar_subquery().is_not(None)

        author = given.c.author_id
        self._rows = select(
            *(_SPARSE.restore(each, each.key) for each in given.c),
            has_tombstone(given.c.user_id).label("is_forgotten"),
            (author.is_not(None) & has_tombstone(author)).label("is_authors_forgotten"),
        ).cte("rows")
        self._logged = self._insert_logs().cte("logged")
        self._bodies = self._insert_bodies().cte("bodies")

    def insert(self, *, keyed: bool, charged: bool) -> Executable:
        """Insert rows, complete their idempotency keys and settle their charges, in one statement
        and so one commit."""
        completed = (self._completed(),) if keyed else ()
        return self._outcome(*completed, *(self._settled() if charged else ()))

    def _settled(self) -> tuple[CTE, ...]:
        """Settles the charges of new rows, each with the lease that it names. Leases are locked in
        order, as `limits` locks them."""
        lease, rows, logged = self._known.limit_lease, self._rows, self._logged
        charge = (
            func.jsonb_to_recordset(rows.c.charges)
            .table_valued(
                column("lease", BigInteger()), column("amount", BigInteger()), name="charge"
            )
            .render_derived(with_types=True)
            .lateral()
        )
        charged = (
            select(charge.c.lease, cast(func.sum(charge.c.amount), BigInteger()).label("amount"))
            .select_from(rows.join(logged, logged.c.id == rows.c.id).join(charge, true()))
            .group_by(charge.c.lease)
            .cte("charged")
        )
        locked = (
            select(lease.c.id, charged.c.amount)
            .join(charged, charged.c.lease == lease.c.id)
            .order_by(lease.c.id)
            .with_for_update(of=lease)
            .cte("locked")
        )
        settled = (
            update(lease)
            .where(lease.c.id == locked.c.id)
            .values(settled=lease.c.settled + locked.c.amount)
            .cte("settled")
        )
        return (settled,)

    def _completed(self) -> CTE:
        """Completes the keys of new rows.

        A key is completed by the claim that holds it now: an owner whose lease has passed to
        another stores its row and no more. Keys are locked in order, as claims lock them.
        """
        keys, logged = self._known.idempotency_key, self._logged
        claims = select(rows_of("claims", keys, ("user_id", "key", "log_id"), token=Uuid())).cte(
            "claims"
        )
        owned = (
            select(keys.c.id, logged.c.id.label("log_id"))
            .join(claims, (claims.c.user_id == keys.c.user_id) & (claims.c.key == keys.c.key))
            .join(logged, logged.c.id == claims.c.log_id)
            .where(keys.c.claim == claims.c.token)
            .order_by(keys.c.user_id, keys.c.key)
            .with_for_update(of=keys)
            .cte("owned")
        )
        return (
            update(keys)
            .where(keys.c.id == owned.c.id)
            .values(log_id=owned.c.log_id)
            .returning(keys.c.id)
            .cte("completed")
        )

    def insert_with(self, shapes: tuple[Shape, ...], *, charged: bool) -> Executable:
        """The same, and effects of these shapes, each from a document of its own. Raises
        `LookupError` if there is no such model or column any more."""
        write = EffectCtes(self._rows, self._logged)
        effects = (write.cte(shape, document_name(at)) for at, shape in enumerate(shapes))
        return self._outcome(self._completed(), *effects, *(self._settled() if charged else ()))

    def _insert_logs(self) -> Any:
        """Of forgotten users, without what the caller wrote."""
        log, rows = self._known.generation_log, self._rows
        blank: dict[str, ColumnElement[Any]] = {
            name: cast(literal_column(empty), log.c[name].type)
            for name, empty in WRITTEN_BY_CALLERS.items()
        }
        given = select(
            *(
                case((rows.c.is_forgotten, blank[name]), else_=value) if name in blank else value
                for name, value in zip(
                    self._log_columns,
                    values_of(rows, log, self._log_columns).selected_columns,
                    strict=True,
                )
            )
        )
        return (
            insert(log)
            .from_select(self._log_columns, given.where(rows.c.id >= oldest_id(self._kept)))
            .on_conflict_do_nothing(index_elements=["id"])
            .returning(log.c.id)
        )

    def _insert_bodies(self) -> Any:
        """Of new rows only: texts that were erased must not come back with a row's repetition.

        Of forgotten users, none, and none of what an operator has sent again of theirs. The log row
        decides about a conflict, so that none is looked for here, which takes 7 % of PostgreSQL's
        time for a row.
        """
        body, rows, logged = self._known.generation_body, self._rows, self._logged
        given = (
            values_of(rows, body, self._body_columns)
            .join(logged, logged.c.id == rows.c.id)
            .where(
                (rows.c.id >= oldest_id(self._bodies_kept))
                & ~rows.c.is_forgotten
                & ~rows.c.is_authors_forgotten
            )
        )
        return insert(body).from_select(self._body_columns, given)

    def _outcome(self, *also: CTE) -> Executable:
        new = select(self._logged.c.id, false().label("is_expired"))
        expired = select(self._rows.c.id, true().label("is_expired")).where(
            self._rows.c.id < oldest_id(self._kept)
        )
        return new.union_all(expired).add_cte(self._bodies, *also)


def oldest_id(kept: timedelta) -> ColumnElement[Any]:
    """Returns the id that rows made so long ago have, by the database's clock.

    A subquery, so that it is evaluated once and not for each row.
    """
    kept_ms = round(kept.total_seconds() * _MS_PER_S)
    now_ms = "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS bigint)"
    digits = f"lpad(to_hex(greatest({now_ms} - {kept_ms}, 0)), 12, '0') || repeat('0', 20)"
    return literal_column(f"(SELECT CAST({digits} AS uuid))", Uuid())
