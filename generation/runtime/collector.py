"""Python's cyclic garbage collector, kept from the hot path."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLECT_AFTER = 100_000  # objects more than after the last collection; some 20 MB
# Collections after which their survivors are looked at once more. With Python's 10, these are a
# million objects while 5,000 streams begin, and all streams wait for 0.5 s in place of 0.1 s.
AGAIN_AFTER = 1
# Collections of survivors after which all objects are looked at: as rarely as with 10 and 10.
ALL_AFTER = 50


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Run the cyclic garbage collector rarely, and never over objects allocated at start-up.

    Requests in flight are objects that live long and form no cycles (a test proves it). At the
    default of 2,000 objects the collector goes through them again and again, at a cost that grows
    with their number: of 455 µs per request at 500 in flight, and of 619 µs at 2,000, all but
    260 µs.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, AGAIN_AFTER, ALL_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
