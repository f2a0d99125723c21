"""Phase 3's promise: an answer that was paid for is kept, whatever the database does.

A row goes to PostgreSQL. Where PostgreSQL does not take it in time, it goes to the spool, and from
there to PostgreSQL once that answers again. A row that PostgreSQL refuses becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import (
    DatabaseUnavailable,
    PartitionMissing,
    RowRefused,
    StaccatoError,
)
from generation.journal.dead_letters import DeadLetters
from generation.journal.spool import Spool
from generation.partitions.intervals import WEEK, moment_of
from generation.store.logs import size_of
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from generation.conf import Settings
    from generation.records import KeyedRow, KeyRef, LogRow
    from generation.store import Store
    from generation.telemetry.snapshot import JournalSnapshot

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # between tries to store rows that wait
ADOPT_EVERY_S = 5.0  # between looks for the journals of processes that died

APPEND_BOUNDS = Bounds(
    batch_rows=500, batch_bytes=8 * MIB, queue_rows=100_000, queue_bytes=1024 * MIB
)


class DurableLog:
    """Writes log rows. One per process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._write_timeout = settings.write_timeout
        self._store = store
        self._spool = Spool(settings)
        self._database = ""  # its identity, once it has been reached
        self._dead_letters: DeadLetters | None = None  # None until then
        self._dead_letter_count = 0
        self._counting = asyncio.Lock()
        self._appends: Batcher[KeyedRow, None] = Batcher(
            "journal", self._append, APPEND_BOUNDS, weigh=size_of
        )
        self._adopt_at = 0.0  # of the loop's clock
        self._work = asyncio.Event()
        self._closing = False
        self._stepping = asyncio.Lock()  # one step at a time
        self._settles_begun = 0
        self._settles_done = 0  # the number of the last one that ended
        self._waiting_keys: set[KeyRef] = set()  # as the last one found them
        self.stuck = ""  # why PostgreSQL, though it answers, does not take the rows that wait

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the journal, where the database answers, and replay in the background."""
        await self._open()
        tasks = [asyncio.create_task(self._appends.run()), asyncio.create_task(self._run())]
        try:
            yield
        finally:
            self._closing = True
            self._appends.close()
            self._work.set()
            await asyncio.gather(*tasks)
            async with self._stepping:  # somebody may still settle
                await self._spool.close()

    async def _open(self) -> None:
        if self._dead_letters is None:
            try:
                self._database = await self._store.identify()
            except StaccatoError as error:
                self._spool.explain(f"no journal yet: {error}")
                return
            self._dead_letters = DeadLetters(self._spool.folder, self._database)
        await self._spool.open(self._database)

    def leave_to_parent(self) -> None:
        """After a fork: the journal's rows and locks are the parent's."""
        self._spool.leave_to_parent()

    def admit(self) -> None:
        """Raises `JournalUnavailable` if a new answer could not be kept safe."""
        self._spool.admit()

    async def write(self, keyed: KeyedRow) -> None:
        """Returns when the row is safe, or as safe as it can be made. Raises nothing.

        If the database has not stored the row within STACCATO_WRITE_TIMEOUT, or can't be reached,
        the row goes to the journal. Never cancel this: the row would leave the queue with its
        caller.
        """
        try:
            written = self._store.logs.insert(keyed)
        except DatabaseUnavailable:
            await self._keep(keyed)
            return
        try:
            async with asyncio.timeout(self._write_timeout):
                await written
        except RowRefused as refusal:
            await self._set_aside(keyed, refusal)
        except (TimeoutError, StaccatoError):
            # After a timeout the row has left the queue; a flush under way is left to finish.
            await self._keep(keyed)

    async def settle(self, key: KeyRef) -> bool:
        """Store every row that waits, of this process and of those that died. Returns whether the
        answer under a key may still wait, in the journal of another process that lives.

        Asked before a key whose lease has ended is taken over: its answer may have been delivered.
        Callers share the work that begins after they asked. Raises `DatabaseUnavailable`.
        """
        needed = self._settles_begun + 1
        async with self._stepping:
            if self._settles_done < needed:
                self._settles_begun += 1
                number = self._settles_begun
                await self._step(adopt=True)
                if self._dead_letters is None:
                    raise DatabaseUnavailable("the database can't be reached", retry_after=1)
                self._waiting_keys = await self._spool.keys()
                self._settles_done = number
            return key in self._waiting_keys

    async def find_refused(self, token: UUID) -> LogRow | None:
        """Returns the answer that was given under a claim, if PostgreSQL has refused its row."""
        keyed = self._spool.find_in_memory(token)
        if keyed is None and self._dead_letters is not None:
            keyed = await asyncio.to_thread(self._dead_letters.find, token)
        return keyed.row if keyed is not None and keyed.row.status == "succeeded" else None

    def snapshot(self) -> JournalSnapshot:
        return self._spool.snapshot(rows_refused=self._dead_letter_count)

    async def _keep(self, keyed: KeyedRow) -> None:
        try:
            await self._appends.submit(keyed)
        except DatabaseUnavailable:  # this queue is full as well
            self._spool.remember([keyed], "its queue is full", "the journal's queue is full")
        self._work.set()

    async def _append(self, batch: Sequence[KeyedRow]) -> list[None]:
        await self._spool.keep(batch)
        return [None] * len(batch)

    # --- replay ---------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                async with self._stepping:
                    await self._step()
            except (StaccatoError, OSError) as error:
                logger.debug("not yet: %s", error)
            except Exception:
                logger.exception("the journal's replay failed")
            if self._closing:
                return
            await self._pause()

    async def _step(self, *, adopt: bool = False) -> None:
        """Open the journal if it is not open, adopt orphans now and then, and replay."""
        if not self._spool.is_open:
            await self._open()
        now = asyncio.get_running_loop().time()
        if adopt or now >= self._adopt_at:
            self._adopt_at = now + ADOPT_EVERY_S
            await self._adopt()
        if self._spool:
            await self._spool.rescue()
            await self._spool.replay(self._hand_over)
        if not self._spool:
            self.stuck = ""

    async def _pause(self) -> None:
        """Wait until another step may help."""
        self._work.clear()
        if self._spool or not self._spool.is_open:
            # The database or the disk is away: another row is no reason to try sooner.
            await asyncio.sleep(RETRY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPT_EVERY_S):
                await self._work.wait()

    async def _adopt(self) -> None:
        """Other processes and operators change the folder as well."""
        if self._dead_letters is not None:
            await self._spool.adopt_orphans(self._hand_over)
            await self._count_dead_letters(self._dead_letters)

    async def _count_dead_letters(self, dead_letters: DeadLetters) -> None:
        """One at a time: a count reads on from where the last one ended."""
        async with self._counting:
            self._dead_letter_count = await asyncio.to_thread(dead_letters.count)

    async def _hand_over(self, batch: Sequence[KeyedRow]) -> list[KeyedRow]:
        """Returns the rows that are stored, set aside or set apart; memory has the others.

        Raises `DatabaseUnavailable` if not all of them could be stored.
        """
        # The database may be away for long, and no other request may take over their keys
        # meanwhile. At the same time, since trouble with keys must not keep the rows.
        owners = [keyed.claim for keyed in batch if keyed.row.status == "succeeded" and keyed.claim]
        _renewed, pinged = await asyncio.gather(
            self._store.claims.renew(owners), self._store.ping(), return_exceptions=True
        )
        if pinged is not None:
            raise pinged
        inserted = [self._store.logs.insert(keyed) for keyed in batch]
        outcomes = await asyncio.gather(*inserted, return_exceptions=True)
        done, strays = [], []
        for keyed, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, RowRefused):
                if not await self._set_aside(keyed, outcome):
                    continue
            elif isinstance(outcome, PartitionMissing) and _is_stray(keyed):
                strays.append(keyed)
                continue
            elif isinstance(outcome, BaseException):
                self.stuck = str(outcome)
                raise outcome
            done.append(keyed)
        metrics.REPLAYED.inc(len(done))
        if strays:
            await self._spool.set_apart(strays)
        return [*done, *strays]

    async def _set_aside(self, keyed: KeyedRow, refusal: RowRefused) -> bool:
        """Returns whether the row is a dead letter now; if not, it is in memory only."""
        assert self._dead_letters is not None, "no database has refused it"
        row_id = keyed.row.id
        try:
            await asyncio.to_thread(self._dead_letters.add, keyed, str(refusal))
        except OSError as error:
            if keyed not in self._spool:  # logged once, not at each try
                self._spool.remember_refused(
                    keyed, f"PostgreSQL refuses {row_id}, which can't be set aside: {error}", error
                )
            return False
        metrics.REFUSED_ROWS.inc()
        with contextlib.suppress(OSError):  # it is counted at the next look into the folder
            await self._count_dead_letters(self._dead_letters)
        logger.error(
            "PostgreSQL refuses the row %s: %s; see manage.py staccato_journal", row_id, refusal
        )
        return True


def _is_stray(keyed: KeyedRow) -> bool:
    """Whether the row is of another time than now, so that a partition for now would not help it.

    A clock was wrong, or the row has waited for long.
    """
    return abs(moment_of(keyed.row.id) - datetime.now(UTC)) > WEEK
