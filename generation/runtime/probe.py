"""What the database says to a readiness check, asked at most once a second, for all who ask."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from generation.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from generation.store import Store

TIMEOUT_S = 2.0
KEPT_S = 1.0  # however often we are asked, the database is asked once in this time


class DatabaseProbe:
    """Whether it would store a row, and which of the migrations that it lacked it still lacks."""

    def __init__(self, store: Store, pending_migrations: list[str]) -> None:
        self.pending_migrations = pending_migrations
        self._store = store
        self._state = ""
        self._asked_at = 0.0  # time.monotonic()
        self._asking: asyncio.Task[None] | None = None

    async def state(self) -> str:
        """'ok', or why no row could be stored."""
        if not self._state or time.monotonic() - self._asked_at > KEPT_S:
            if self._asking is None:
                self._asking = asyncio.get_running_loop().create_task(self._ask())
            # Shielded: the one that began to ask may leave while others wait for its answer.
            await asyncio.shield(self._asking)
        return self._state

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._store.ping()
                if self.pending_migrations:  # they may have been applied since the start
                    self.pending_migrations = await self._store.pending_among(
                        self.pending_migrations
                    )
            self._state = "ok"
        except (DatabaseUnavailable, TimeoutError) as error:
            self._state = str(error) or f"no answer within {TIMEOUT_S:g} s"
        finally:
            self._asked_at = time.monotonic()
            self._asking = None
