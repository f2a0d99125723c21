"""Refusals leave at a steady pace, each API key's in turn.

Clients that ask again at once, whatever Retry-After says, would make the loop refuse hundreds of
requests before it serves the next step of an admitted one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from generation.fair_queue import FairQueue
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Hashable

AT_ONCE = 20  # refusals that leave without a wait
EVERY_S = 0.1  # so many again; 200 a second take a tenth of a core
MOST_HELD = 2_000  # then a refusal leaves at once; each takes a few kB
LONGEST_S = 10.0


class RefusalPace:
    """One per process."""

    def __init__(self) -> None:
        self._turns = FairQueue(AT_ONCE)
        self._has_ended = False
        self.held = 0

    async def wait(self, key: Hashable) -> None:
        """Return when the refusal of one of the key's requests may leave. May be cancelled."""
        if self._has_ended or self.held >= MOST_HELD:
            return
        if self._turns.is_full:
            metrics.REFUSALS_HELD.inc()
        self.held += 1
        try:
            async with asyncio.timeout(LONGEST_S):
                await self._turns.acquire(key)
        except TimeoutError:
            return
        finally:
            self.held -= 1
        asyncio.get_running_loop().call_later(EVERY_S, self._turns.release)

    def end(self) -> None:
        """Let all leave: the process ends."""
        self._has_ended = True
        for _ in range(self.held):
            self._turns.release()
