"""The caller's trace, as W3C Trace Context names it."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_OURS = "00-"  # the one version so far; a later one may append fields


def trace_id(traceparent: str | None) -> str:
    """Returns the trace's id, 32 hex digits; '' if there is no header, or no valid one."""
    if traceparent is None:
        return ""
    given = traceparent.strip()
    found = _TRACEPARENT.match(given)
    if found is None:
        return ""
    rest = given[found.end() :]
    if rest and (given.startswith(_OURS) or not rest.startswith("-")):
        return ""
    return found[1]
