"""How many requests this process can carry."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)

# A request in flight holds its client's socket and its provider's.
FILES_PER_REQUEST = 2
FILES_RESERVED = 200  # the pools, listeners, logs, loaded modules


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
