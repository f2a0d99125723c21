"""Idempotency-Key: one LLM call for a request that its caller may repeat.

A key is claimed in PostgreSQL before phase 1 and completed by the insertion of its log row, so
that it works across processes and hosts. A claim is a lease by the database's clock: where its
owner dies, the next repetition after it takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Interval, bindparam, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from generation.database.batching import Batcher, Bounds
from generation.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    StaccatoError,
)
from generation.records import Generation, Usage
from generation.store import tables
from generation.store.logs import as_document, given

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Executable, Row

    from generation.database.engine import Database
    from generation.records import GenerationRequest
    from generation.store.logs import Store

KEPT_S = 24 * 3600  # how long a repetition gets the first answer
RELEASE_WAIT_S = 2.0
PURGE_ROWS = 10_000  # in one statement
BOUNDS = Bounds(
    batch_rows=500, batch_bytes=1024 * 1024, queue_rows=100_000, queue_bytes=64 * 1024 * 1024
)

KEY_PATTERN = "^[!-~]{1,255}$"
_KEY = re.compile(KEY_PATTERN)
Place = tuple[int, str]  # user, key
_CLAIM_COLUMNS = ("user_id", "key", "fingerprint", "claim")


@dataclass(frozen=True, slots=True)
class Claim:
    """The wish to run a request under its key; `claim` is its fencing token."""

    user_id: int
    key: str
    fingerprint: str
    claim: UUID

    @property
    def place(self) -> Place:
        return self.user_id, self.key


def read(header: str | None) -> str:
    """The key in a request's header; '' if there is none. Raises `IdempotencyKeyInvalid`."""
    if header is None:
        return ""
    if not _KEY.fullmatch(header):
        raise IdempotencyKeyInvalid("an Idempotency-Key has 1 to 255 visible ASCII characters")
    return header


def fingerprint(request: GenerationRequest) -> str:
    """SHA-256 of what is asked for: the same key with anything else is an error."""
    asked = {
        "input": request.input,
        "variables": dict(request.variables),
        "provider": request.provider,
        "model": request.model,
        "max_tokens": request.max_tokens,
    }
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _claim_statement() -> Executable:
    """Claim what is free, and tell of the rest who has it or what it was answered.

    Rows are inserted in the order of their keys, so that two processes can't deadlock.
    """
    keys, log = tables.idempotency_key, tables.generation_log
    asked = select(given(keys, _CLAIM_COLUMNS)).cte("asked")
    lease = func.now() + bindparam("lease", type_=Interval)
    expired = keys.c.created_at < func.now() - bindparam("kept", type_=Interval)
    abandoned = keys.c.log_id.is_(None) & (keys.c.leased_until < func.now())
    emptied = keys.c.log_id.is_not(None) & ~exists().where(log.c.id == keys.c.log_id)
    new = insert(keys).from_select(
        [*_CLAIM_COLUMNS, "leased_until", "created_at"],
        select(*(asked.c[name] for name in _CLAIM_COLUMNS), lease, func.now()).order_by(
            asked.c.user_id, asked.c.key
        ),
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
    return (
        select(
            asked.c.claim,
            claimed.c.claim.is_not(None).label("won"),
            keys.c.fingerprint,
            log.c.id,
            log.c.result,
            log.c.input_tokens,
            log.c.output_tokens,
            log.c.provider,
            log.c.model,
            log.c.latency_ms,
        )
        .select_from(asked)
        .outerjoin(claimed, claimed.c.claim == asked.c.claim)
        .outerjoin(keys, (keys.c.user_id == asked.c.user_id) & (keys.c.key == asked.c.key))
        .outerjoin(log, log.c.id == keys.c.log_id)
    )


def _release_statement() -> Executable:
    keys = tables.idempotency_key
    released = select(given(keys, ("user_id", "key", "claim"))).subquery()
    return delete(keys).where(
        (keys.c.user_id == released.c.user_id)  # which the index knows
        & (keys.c.key == released.c.key)
        & (keys.c.claim == released.c.claim)
        & keys.c.log_id.is_(None)
    )


def _purge_statement() -> Executable:
    keys = tables.idempotency_key
    old = (
        select(keys.c.id)
        .where(keys.c.created_at < func.now() - bindparam("kept", type_=Interval))
        .limit(PURGE_ROWS)
        .with_for_update(skip_locked=True)
    )
    return delete(keys).where(keys.c.id.in_(old)).returning(keys.c.id)


_CLAIM = _claim_statement()
_RELEASE = _release_statement()
_PURGE = _purge_statement()


class Idempotency:
    """The claims of one process."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._times = {"lease": store.lease, "kept": timedelta(seconds=KEPT_S)}
        # A repetition while the first runs here needs no statement to be refused.
        self._running: dict[Place, Claim] = {}
        self._claiming: dict[Place, tuple[Claim, asyncio.Future[Row[Any] | None]]] = {}
        self._claims: Batcher[Claim, Row[Any] | None] = Batcher("claim", self._claim, BOUNDS)
        self._releases: Batcher[Claim, None] = Batcher("release", self._release, BOUNDS)
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._claims, self._releases)

    async def once(
        self,
        request: GenerationRequest,
        generate: Callable[[UUID], Awaitable[Generation]],
    ) -> Generation:
        """Run `generate(claim)` under the request's key, or return what it was answered before.

        Raises `IdempotencyKeyInUse`, `IdempotencyKeyReused`, `DatabaseUnavailable`, or what
        `generate` raises; the key is free again then.
        """
        wish = Claim(request.user_id, request.idempotency_key, fingerprint(request), uuid4())
        if owner := self._running.get(wish.place):
            raise _refusal(wish, owner.fingerprint)
        earlier = await self._win(request, wish)
        if earlier is not None:
            return earlier
        self._running[wish.place] = wish
        try:
            return await generate(wish.claim)
        except BaseException:
            await self._give_back(wish)
            raise
        finally:
            del self._running[wish.place]

    async def _win(self, request: GenerationRequest, wish: Claim) -> Generation | None:
        """None where the claim is ours; else the earlier answer, or the refusal."""
        asked, answer = self._claiming.get(wish.place) or self._ask(wish)
        try:
            # Shared, so the first to give up must not cancel it for the others.
            found = await self._store.within(request, asyncio.shield(answer))
        except BaseException:
            if asked is wish:
                answer.add_done_callback(lambda answer: self._give_back_unused(wish, answer))
            raise
        if found is not None and found.won:
            if asked is wish:
                return None
            raise _refusal(wish, asked.fingerprint)
        # Not found: whoever claimed it did so while our statement ran.
        if found is None or found.fingerprint != wish.fingerprint or found.id is None:
            raise _refusal(wish, found.fingerprint if found is not None else None)
        return Generation(
            id=UUID(str(found.id)),  # the driver's own type of UUID is none that JSON knows
            result=found.result,
            usage=Usage(found.input_tokens, found.output_tokens),
            provider=found.provider,
            model=found.model,
            latency_ms=found.latency_ms,
            replayed=True,
        )

    def _ask(self, wish: Claim) -> tuple[Claim, asyncio.Future[Row[Any] | None]]:
        """Queue a claim; who wants the same key meanwhile shares its answer."""
        answer = self._claims.submit(wish, 500)
        self._claiming[wish.place] = (wish, answer)
        answer.add_done_callback(lambda _answer: self._claiming.pop(wish.place))
        return wish, answer

    def _give_back_unused(self, wish: Claim, answer: asyncio.Future[Row[Any] | None]) -> None:
        """A claim that was won after its caller had given up."""
        if answer.cancelled() or answer.exception() is not None:
            return
        found = answer.result()
        if found is not None and found.won:
            with contextlib.suppress(StaccatoError):
                self._releases.submit(wish, 500)

    async def _give_back(self, claim: Claim) -> None:
        """Where this fails, the lease ends by itself."""
        with contextlib.suppress(StaccatoError, TimeoutError):
            async with asyncio.timeout(RELEASE_WAIT_S):
                await asyncio.shield(self._releases.submit(claim, 500))

    async def purge(self) -> None:
        """Delete records older than a day. Raises `DatabaseUnavailable`."""
        deleted = PURGE_ROWS
        while deleted == PURGE_ROWS:
            deleted = len(await self._database.run(_PURGE, {"kept": self._times["kept"]}))

    async def _claim(self, wishes: Sequence[Claim]) -> list[Row[Any] | None]:
        rows = await self._database.run(_CLAIM, as_document(wishes) | self._times)
        found = {row.claim: row for row in rows if row.won or row.fingerprint is not None}
        return [found.get(wish.claim) for wish in wishes]

    async def _release(self, claims: Sequence[Claim]) -> list[None]:
        await self._database.run(_RELEASE, as_document(claims))
        return [None] * len(claims)


def _refusal(wish: Claim, owner: str | None) -> StaccatoError:
    if owner is not None and owner != wish.fingerprint:
        return IdempotencyKeyReused(
            "this Idempotency-Key was sent with another request; use a new one"
        )
    return IdempotencyKeyInUse(
        "the first request with this Idempotency-Key is still being worked on", retry_after=1
    )
