"""How many long searches a process does at once, and why no page waits for them."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from generation.asgi.stock_places import step_aside

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each takes a connection of Django's pool, of four, and a core of the database's.
AT_ONCE = 2


class AllTaken(Exception):  # a state, not a fault
    """As many searches are under way as may be at once. Its text says what to do."""


class SearchPlaces:
    """Nobody waits here: a thread that waits would be one that serves no page."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = threading.BoundedSemaphore(at_once)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Let other pages be served meanwhile. Raises `AllTaken`."""
        if not self._free.acquire(blocking=False):
            raise AllTaken("Other searches are under way.")
        try:
            step_aside()
            yield
        finally:
            self._free.release()


places = SearchPlaces()
