"""A limit of calls at once, whose queue serves the API keys in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class FairQueue:
    """Like a semaphore, except that one key's many waiters do not delay another key's few: keys
    are served round robin, each in the order in which its calls came. All is O(1)."""

    def __init__(self, places: int) -> None:
        self._free = places
        # The keys with waiters; the first one is next.
        self._queues: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def is_full(self) -> bool:
        return self._free == 0

    async def acquire(self, key: Hashable) -> None:
        """Take a place, which `release()` gives back. May be cancelled."""
        if self._free:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was just given a place
                self.release()
            raise

    def release(self) -> None:
        while self._queues:
            key, waiters = self._queues.popitem(last=False)
            waiter = waiters.popleft()
            if waiters:
                self._queues[key] = waiters  # at the end
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
