"""Whether the database would store a row now, asked at most once a second."""

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
    """For readiness checks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = ""
        self._asked_at = 0.0  # time.monotonic()

    async def state(self) -> str:
        """'ok', or why no row could be stored."""
        if not self._state or time.monotonic() - self._asked_at > KEPT_S:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._store.ping()
                self._state = "ok"
            except (DatabaseUnavailable, TimeoutError) as error:
                self._state = str(error) or f"no answer within {TIMEOUT_S:g} s"
            self._asked_at = time.monotonic()
        return self._state
