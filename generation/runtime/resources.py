"""How many requests this process can carry, and at which cost in memory and time."""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

# A request in flight holds its client's socket and its provider's.
FILES_PER_REQUEST = 2
FILES_RESERVED = 200  # the pools, listeners, logs, loaded modules
COLLECT_AFTER = 100_000  # objects more than at the last look; some 20 MB


@contextlib.contextmanager
def seldom_collecting() -> Iterator[None]:
    """Have Python's cycle collector look seldom, and never at what was there at the start.

    Requests in flight are objects that live long and form no cycles (a test says so). With the
    default of 2,000 they are looked through again and again, at a cost that grows with their
    number: of 455 µs a request at 500 in flight, and 619 µs at 2,000, all but 260 µs.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def carry(wanted: int) -> int:
    """Raise the open-file limit as far as allowed; the requests in flight that it then carries.

    At most `wanted`. Says so in the log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * FILES_PER_REQUEST + FILES_RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        goal = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if goal > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
    if soft == resource.RLIM_INFINITY or soft >= needed:
        logger.info("the open-file limit carries %d requests in flight", wanted)
        return wanted
    carried = max(1, (soft - FILES_RESERVED) // FILES_PER_REQUEST)
    logger.warning(
        "the open-file limit of %d carries %d requests in flight, not %d; raise it with"
        " `ulimit -n %d`",
        soft,
        carried,
        wanted,
        needed,
    )
    return carried
