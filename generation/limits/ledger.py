"""The blocks of this process, and its one line to PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import StaccatoError
from generation.limits.blocks import Block
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from generation.database.engine import Database
    from generation.limits.rules import Rule
    from generation.store.limits import LimitTables

logger = throttled_logger(__name__)

BOUNDS = Bounds(batch_rows=500, batch_bytes=MIB, queue_rows=100_000, queue_bytes=32 * MIB)
_ASK_BYTES = 250
TICK_S = 1.0
LOOK_S = 2.0  # how often a process that uses nothing of a budget asks what is left for the others
JUMP_S = 0.05  # of the database's clock; less is the way of an answer


Need: TypeAlias = tuple[Block, int]  # what a call takes of a block


class Short(Exception):  # an answer, not an error
    """A limit does not allow a call."""

    def __init__(self, need: Need) -> None:
        super().__init__(need[0].rule.name)
        self.block, self.amount = need


class Ledger:
    """One per process. `ttl_s`: for how long others wait for a process that says nothing before
    they take it for dead."""

    def __init__(
        self,
        database: Database,
        tables: LimitTables,
        *,
        ttl_s: float,
        on_used: Callable[[Block], None] = lambda _block: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = uuid4()
        self._name = f"{socket.gethostname()}:{os.getpid()}"[:100]
        self._database = database
        self._tables = tables
        self._ttl_s = ttl_s
        self._on_used = on_used
        self.clock = clock
        self._blocks: dict[tuple[int, str], Block] = {}
        self.epoch = 0  # grows when what is known of blocks together may be wrong
        # By how much the database's clock is ahead of ours, which never jumps.
        self.ahead_s = time.time() - clock()
        self._processes = 1
        self.refused_at = -TICK_S  # when PostgreSQL last left too little for a call
        self._bury_at = 0.0
        self._look_at = 0.0
        self._asks: Batcher[Block, None] = Batcher(
            "lease", self._flush, BOUNDS, weigh=lambda _block: _ASK_BYTES
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._asks,)

    # --- time -------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Returns the database's time, as far as this process knows it."""
        return datetime.fromtimestamp(self.clock() + self.ahead_s, UTC)

    def timestamp(self) -> float:
        return self.clock() + self.ahead_s

    def note_time(self, now: datetime) -> None:
        ahead_s = now.timestamp() - self.clock()
        if abs(ahead_s - self.ahead_s) > JUMP_S:
            self.epoch += 1  # since windows end at another time by our clock
        self.ahead_s = ahead_s

    # --- what calls do ------------------------------------------------------------------------

    def block(self, rule: Rule, subject: str) -> Block:
        """Returns the block of the window that holds now."""
        key = (rule.id, subject)
        block = self._blocks.get(key)
        if block is not None and block.rule is rule:
            ends_at = block.ends_at
            if ends_at is None or self.clock() + self.ahead_s < ends_at:
                return block
        window = rule.window_at(self.now())
        if block is not None and (block.window, block.rule.generation) == (window, rule.generation):
            block.adopt(rule)
            return block
        block = self._blocks[key] = Block(rule, subject, window, self.clock())
        self.epoch += 1
        return block

    def find(self, rule: Rule, subject: str) -> Block | None:
        """Returns the block if there is one, whose window may be over."""
        return self._blocks.get((rule.id, subject))

    async def reserve(self, needs: Sequence[Need], since: float) -> None:
        """Take all of it or nothing. Waits for PostgreSQL where the blocks do not do.

        Raises `Short`, or `DatabaseUnavailable` within DB_POOL_TIMEOUT of `since`, the request's
        arrival.
        """
        if self.take(needs):
            return
        with metrics.LEASE_WAIT.time():
            await self._database.within(self._reserve_slowly(needs), since=since)

    def take(self, needs: Sequence[Need]) -> bool:
        """Take all of it or nothing, of what this process has leased. Returns whether it did."""
        now = self.clock()
        if not all(block.has(amount, now) for block, amount in needs):
            return False
        for block, amount in needs:
            block.free -= amount
            block.taken += amount
        return True

    async def _reserve_slowly(self, needs: Sequence[Need]) -> None:
        while True:
            now = self.clock()
            short = [need for need in needs if not need[0].has(need[1], now)]
            answers = [self._ask(block, amount) for block, amount in short]
            for (block, _amount), answer in zip(short, answers, strict=True):
                try:
                    await asyncio.shield(answer)
                except StaccatoError:
                    if block.rule.is_enforced:
                        raise
                    # What refuses nothing asks for nothing.
                    block.answered_at = self.clock()
                    block.good_until = block.answered_at + self._ttl_s
            for need in needs:
                if need[0].is_hopeless(need[1]):
                    self.refused_at = self.clock()
                    raise Short(need)
            if self.take(needs):
                return

    @property
    def has_refused(self) -> bool:
        """Whether any call was refused within the last second."""
        return self.clock() - self.refused_at < TICK_S

    def hopeless(self, needs: Sequence[Need]) -> Need | None:
        """Returns what is known to be refused, without asking: the last answer was a moment ago."""
        recent = self.clock() - TICK_S
        for block, amount in needs:
            at = block.answered_at
            if at is not None and at > recent and block.is_hopeless(amount):
                return (block, amount)
        return None

    async def look(self, blocks: Sequence[Block]) -> None:
        """Ask how windows stand, unless that is known of a second ago. Raises
        `DatabaseUnavailable`."""
        recent = self.clock() - TICK_S
        answers = [
            self._ask(block, 0)
            for block in blocks
            if block.answered_at is None or block.answered_at < recent
        ]
        for answer in answers:
            await self._database.within(asyncio.shield(answer))

    def free_place(self, block: Block) -> None:
        """Of a call that is not in flight any more."""
        block.settle(1, 0)
        is_scarce = block.amount < 2 * self._processes > 2
        if is_scarce and block.answer is None and block.free > 0:
            # There may be none left for the others: they need not wait for the next tick.
            block.give_back(block.free)
            self._ask_quietly(block)

    # --- PostgreSQL ---------------------------------------------------------------------------

    def _ask(self, block: Block, wanted: int) -> asyncio.Future[None]:
        if wanted:
            block.waiting.append(block.threshold(wanted))
        answer = block.answer
        # One that is done is still here until the loop has run its callbacks. It says nothing about
        # this call, which would not wait for it, and so never let the loop run them.
        if answer is None or answer.done():
            answer = block.answer = self._asks.submit(block)
            answer.add_done_callback(block.forget)
        return answer

    def _ask_quietly(self, block: Block) -> None:
        """Nobody waits for the answer; after a failure, the next one says the same."""
        with contextlib.suppress(StaccatoError):
            self._ask(block, 0).add_done_callback(_retrieve)

    async def _flush(self, blocks: Sequence[Block]) -> list[None]:
        asked = {block.key: block for block in blocks}
        asks = [block.draw_up() for block in asked.values()]
        metrics.LEASE_STATEMENTS.inc()
        rows = await self._tables.ask(
            asks,
            run=self.run,
            name=self._name,
            ttl=timedelta(seconds=self._ttl_s),
            processes=self._processes,
        )
        now = self.clock()
        for row in rows:
            block = asked[row.limit_id, row.subject, row.start, row.generation]
            block.take_answer(row, now, self._ttl_s)
            self._on_used(block)
        if rows:
            self._processes = max(rows[0].processes, 1)
            self.note_time(rows[0].now)
        return [None] * len(blocks)

    async def tick(self) -> None:
        """About once a second: lease for the demand, give back what lies idle, say that we live."""
        now = self.clock()
        await self._look_at_idle(now)
        for key, block in list(self._blocks.items()):
            end = block.window.end
            if (end is not None and end <= self.now() and not block.reserved) or block.is_done(now):
                del self._blocks[key]
                self.epoch += 1
            elif block.tick(now, self._processes) or self._is_silent(block, now):
                self._ask_quietly(block)
        if self._blocks and now >= self._bury_at:
            self._bury_at = now + self._ttl_s / 3
            await self._tables.bury()

    async def _look_at_idle(self, now: float) -> None:
        """A part that lies idle here goes back as soon as another process may be refused for it;
        only PostgreSQL knows that others have taken the rest."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        idle = {
            block.window_id: block
            for block in self._blocks.values()
            if block.window_id is not None and block.is_idle_budget
        }
        if idle:
            for row in await self._tables.committed(list(idle)):
                block = idle[row.id]
                block.left = block.amount - row.committed

    def _is_silent(self, block: Block, now: float) -> bool:
        if block.answer is not None or block.answered_at is None or block.rule.refill_s:
            return False
        return now - block.answered_at > self._ttl_s / 3 and (block.granted != 0)

    async def close(self) -> None:
        """Give back what is free. Raises nothing."""
        pending = []
        for block in self._blocks.values():
            block.demand = 0.0
            if block.answer is None and block.answered_at is not None and block.free > 0:
                block.give_back(block.free)
                with contextlib.suppress(StaccatoError):
                    pending.append(self._ask(block, 0))
        await asyncio.gather(*pending, return_exceptions=True)
        if self._blocks:
            with contextlib.suppress(StaccatoError):
                await self._tables.retire(self.run)


def _retrieve(done: asyncio.Future[None]) -> None:
    """Nobody else would look at its error."""
    if not done.cancelled():
        done.exception()
