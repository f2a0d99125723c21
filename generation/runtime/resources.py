"""The open files that requests in flight need."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)

FILES_PER_REQUEST = 2  # its client's socket and its provider's
FILES_RESERVED = 200  # for the pools, listeners, logs and loaded modules


def raise_open_file_limit(wanted: int) -> int:
    """Raise this process's limit of open files, so that so many requests can be in flight.

    Returns how many requests the limit then allows, at most `wanted`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * FILES_PER_REQUEST + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    goal = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if goal > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return _allowed(max(goal, soft), wanted)


def _allowed(soft: int, wanted: int) -> int:
    return min(wanted, max(1, (soft - FILES_RESERVED) // FILES_PER_REQUEST))


def requests_allowed(wanted: int) -> int:
    """Returns how many requests this process's limit of open files allows, at most `wanted`, and
    logs it."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * FILES_PER_REQUEST + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        logger.info("the open-file limit allows %d requests in flight", wanted)
        return wanted
    allowed = _allowed(soft, wanted)
    logger.warning(
        "the open-file limit of %d allows %d requests in flight, not %d; raise it with"
        " `ulimit -n %d`",
        soft,
        allowed,
        wanted,
        needed,
    )
    return allowed
