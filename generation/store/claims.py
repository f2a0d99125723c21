"""The SQL of idempotency keys: claim, release, renew, purge.

A claim is a lease by the database's clock. The insertion of a log row completes it, in one
statement and so one commit: see `logs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Integer,
    Interval,
    Uuid,
    bindparam,
    delete,
    exists,
    extract,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from generation.conversation import load_blocks
from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import AnswerUnreadable, StaccatoError
from generation.records import Generation, Usage
from generation.store import tables
from generation.store.documents import as_document, rows_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from sqlalchemy import Executable, Row

    from generation.database.engine import Database
    from generation.privacy.encryption import KeyRing
    from generation.records import Claim, LogRow
    from generation.store.tables import Tables

KEPT = timedelta(days=1)  # how long a repetition gets the first answer
PURGE_ROWS = 10_000
BOUNDS = Bounds(batch_rows=500, batch_bytes=MIB, queue_rows=100_000, queue_bytes=64 * MIB)
_CLAIM_BYTES = 500
_REF = ("user_id", "key")


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """Whether a claim has won its key; if not, whose key it is."""

    won: bool
    fingerprint: str | None  # of the owner's request
    answer: Generation | None  # what the owner was answered; None while that is under way
    lease_s: float  # how long the owner's lease still has; below zero where it has ended
    owner: UUID | None  # the token of the owner's claim


_Outcome: TypeAlias = "ClaimResult | StaccatoError | None"


class Claims:
    """The keys of all users, which the processes share."""

    def __init__(
        self, database: Database, lease: timedelta, ring: KeyRing, kept: timedelta = KEPT
    ) -> None:
        """`ring` reads the answers."""
        self._database = database
        self._ring = ring
        self.lease_s = lease.total_seconds()
        self._lease = lease
        self._kept = kept
        known = tables.load()
        self._claim_statement = _claim_statement(known)
        self._release_statement = _release_statement(known)
        self._renew_statement = _renew_statement(known)
        self._purge_statement = _purge_statement(known)
        self._claims: Batcher[Claim, ClaimResult | None] = Batcher(
            "claim", self._claim_batch, BOUNDS, weigh=lambda _claim: _CLAIM_BYTES
        )
        self._takeovers: Batcher[Claim, ClaimResult | None] = Batcher(
            "takeover", self._take_over_batch, BOUNDS, weigh=lambda _claim: _CLAIM_BYTES
        )
        self._releases: Batcher[Claim, None] = Batcher(
            "release", self._release_batch, BOUNDS, weigh=lambda _claim: _CLAIM_BYTES
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (
            *(self._claims, self._takeovers, self._releases),
        )

    def claim(self, claim: Claim) -> asyncio.Future[ClaimResult | None]:
        """Win the key if it is free or a day old. A key whose lease has ended is left alone.

        The result is None where another claim took the key while our statement ran. Raises
        `DatabaseUnavailable`, as the future does.
        """
        return self._claims.submit(claim)

    def take_over(self, claim: Claim) -> asyncio.Future[ClaimResult | None]:
        """As `claim()`, and win the key where its owner's lease has ended.

        The owner's answer may wait in a journal: look there first.
        """
        return self._takeovers.submit(claim)

    def release(self, claim: Claim) -> asyncio.Future[None]:
        """Free the key, unless another owns it by now. Raises `DatabaseUnavailable`."""
        return self._releases.submit(claim)

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Keep the keys for claims whose rows can't be stored yet. Raises `DatabaseUnavailable`."""
        if claims:
            await self._database.run(
                self._renew_statement, {"rows": as_document(claims), "lease": self._lease}
            )

    async def purge(self, rows: int = PURGE_ROWS) -> None:
        """Delete the keys that are older than a day, this many in one statement.

        Raises `DatabaseUnavailable`.
        """
        parameters = {"kept": self._kept, "rows": rows}
        deleted = rows
        while deleted == rows:
            deleted = len(await self._database.run(self._purge_statement, parameters))

    async def _claim_batch(self, claims: Sequence[Claim]) -> list[_Outcome]:
        return await self._run_claims(claims, take_over=False)

    async def _take_over_batch(self, claims: Sequence[Claim]) -> list[_Outcome]:
        return await self._run_claims(claims, take_over=True)

    async def _run_claims(self, claims: Sequence[Claim], *, take_over: bool) -> list[_Outcome]:
        rows = await self._database.run(
            self._claim_statement,
            {
                "rows": as_document(claims),
                "lease": self._lease,
                "kept": self._kept,
                "take_over": take_over,
            },
        )
        found = {
            row.token: self._result_of(row)
            for row in rows
            if row.won or row.fingerprint is not None
        }
        return [found.get(claim.token) for claim in claims]

    def _result_of(self, row: Row[Any]) -> ClaimResult | StaccatoError:
        answer = None
        if row.id is not None and not row.won:
            try:
                answer = self.answer_of(row)
            except AnswerUnreadable as error:
                return error
        owner = None if row.owner is None else UUID(str(row.owner))
        return ClaimResult(row.won, row.fingerprint, answer, float(row.lease_s or 0), owner)

    def answer_of(self, row: Row[Any] | LogRow) -> Generation:
        """Returns what the caller of a row was answered. Raises `AnswerUnreadable`."""
        return answer_of(row, self._ring)

    async def _release_batch(self, claims: Sequence[Claim]) -> list[None]:
        await self._database.run(self._release_statement, {"rows": as_document(claims)})
        return [None] * len(claims)


def answer_of(row: Row[Any] | LogRow, ring: KeyRing) -> Generation:
    """Returns what the caller of a row was answered. Raises `AnswerUnreadable`."""
    log_id = UUID(str(row.id))  # JSON encoders do not know the driver's own type of UUID
    return Generation(
        id=log_id,
        result=ring.read(log_id, "result", row.result, row.encryption_key),
        usage=Usage(row.input_tokens, row.output_tokens),
        provider=row.provider,
        model=row.model,
        latency_ms=row.latency_ms,
        replayed=True,
        stop_reason=row.stop_reason,
        blocks=load_blocks(ring.read(log_id, "blocks", row.blocks, row.encryption_key)),
    )


def _claim_statement(tables: Tables) -> Executable:
    """Builds the statement that claims the free keys, and returns the owner or answer of others.

    With `take_over`, a key whose owner's lease has ended is free as well.

    Rows are inserted in the order of their keys, so that two processes can't deadlock.
    """
    keys, log, body = tables.idempotency_key, tables.generation_log, tables.generation_body
    asked = select(rows_of("rows", keys, (*_REF, "fingerprint"), token=Uuid())).cte("asked")
    lease = func.now() + bindparam("lease", type_=Interval)
    expired = keys.c.created_at < func.now() - bindparam("kept", type_=Interval)
    abandoned = (
        bindparam("take_over", type_=Boolean)
        & keys.c.log_id.is_(None)
        & (keys.c.leased_until < func.now())
    )
    # The answer was dropped, or reduced by the content policy.
    is_whole = (body.c.content == "full") | body.c.result_held
    emptied = keys.c.log_id.is_not(None) & ~exists().where((body.c.id == keys.c.log_id) & is_whole)
    values = {
        **{name: asked.c[name] for name in (*_REF, "fingerprint")},
        "claim": asked.c.token,
        "leased_until": lease,
        "created_at": func.now(),
    }
    new = insert(keys).from_select(
        list(values), select(*values.values()).order_by(asked.c.user_id, asked.c.key)
    )
    claimed = (
        new.on_conflict_do_update(
            index_elements=["user_id", "key"],
            set_={
                **{name: new.excluded[name] for name in ("fingerprint", "claim", "created_at")},
                "leased_until": new.excluded.leased_until,
                "log_id": None,
            },
            where=expired | abandoned | emptied,
        )
        .returning(keys.c.claim)
        .cte("claimed")
    )
    # LATERAL with LIMIT: each answer is found through its key, in its one partition; a join might
    # be planned to read all partitions.
    answer = (
        select(
            log.c.id,
            body.c.result,
            body.c.blocks,
            body.c.encryption_key,
            log.c.stop_reason,
            log.c.input_tokens,
            log.c.output_tokens,
            log.c.provider,
            log.c.model,
            log.c.latency_ms,
        )
        .join(body, body.c.id == log.c.id)
        .where((log.c.id == keys.c.log_id) & (body.c.id == keys.c.log_id))
        .limit(1)
        .lateral("answer")
    )
    return (
        select(
            asked.c.token,
            claimed.c.claim.is_not(None).label("won"),
            keys.c.fingerprint,
            keys.c.claim.label("owner"),
            extract("epoch", keys.c.leased_until - func.now()).label("lease_s"),
            *answer.c,
        )
        .select_from(asked)
        .outerjoin(claimed, claimed.c.claim == asked.c.token)
        .outerjoin(keys, (keys.c.user_id == asked.c.user_id) & (keys.c.key == asked.c.key))
        .outerjoin(answer, true())
    )


def _release_statement(tables: Tables) -> Executable:
    keys = tables.idempotency_key
    released = select(rows_of("rows", keys, _REF, token=Uuid())).subquery()
    return delete(keys).where(
        (keys.c.user_id == released.c.user_id)  # the index's columns
        & (keys.c.key == released.c.key)
        & (keys.c.claim == released.c.token)
        & keys.c.log_id.is_(None)
    )


def _renew_statement(tables: Tables) -> Executable:
    """Keys are locked in order, as claims lock them."""
    keys = tables.idempotency_key
    held = select(rows_of("rows", keys, _REF, token=Uuid())).cte("held")
    owned = (
        select(keys.c.id)
        .join(held, (held.c.user_id == keys.c.user_id) & (held.c.key == keys.c.key))
        .where((keys.c.claim == held.c.token) & keys.c.log_id.is_(None))
        .order_by(keys.c.user_id, keys.c.key)
        .with_for_update(of=keys)
        .cte("owned")
    )
    return (
        update(keys)
        .where(keys.c.id == owned.c.id)
        .values(leased_until=func.now() + bindparam("lease", type_=Interval))
    )


def _purge_statement(tables: Tables) -> Executable:
    keys = tables.idempotency_key
    old = (
        select(keys.c.id)
        .where(keys.c.created_at < func.now() - bindparam("kept", type_=Interval))
        .limit(bindparam("rows", type_=Integer))
        .with_for_update(skip_locked=True)
    )
    return delete(keys).where(keys.c.id.in_(old)).returning(keys.c.id)
