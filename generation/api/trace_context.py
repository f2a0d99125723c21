"""The caller's trace, as W3C Trace Context names it."""

from __future__ import annotations

import re

from generation.records import NO_TRACE, Trace

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_OURS = "00-"  # the one version so far; a later one may append fields
_SAMPLED = 1


def read(traceparent: str | None) -> Trace:
    """Returns `NO_TRACE` if there is no header, or no valid one."""
    if traceparent is None:
        return NO_TRACE
    given = traceparent.strip()
    found = _TRACEPARENT.match(given)
    if found is None:
        return NO_TRACE
    rest = given[found.end() :]
    if rest and (given.startswith(_OURS) or not rest.startswith("-")):
        return NO_TRACE
    return Trace(found[1], found[2], is_sampled=bool(int(found[3], 16) & _SAMPLED))
