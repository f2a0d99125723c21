"""What processes had in flight at each of the last 120 seconds: for the live page, which would
otherwise begin with its first look."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    # Of each, three: the second since 1970, requests in flight and connections checked out then.
    Points = Sequence[Sequence[int]]

SECONDS = 120
EVERY_S = 1.0


class History:
    """That of one process."""

    def __init__(
        self, look: Callable[[], tuple[int, int]], clock: Callable[[], float] = time.time
    ) -> None:
        """`look` returns the requests in flight and the connections checked out now."""
        self._look = look
        self._clock = clock
        self._points: deque[tuple[int, int, int]] = deque(maxlen=SECONDS)

    async def note(self) -> None:
        """Add a point. Call it once a second."""
        self._points.append((int(self._clock()), *self._look()))

    def points(self) -> Points:
        return list(self._points)


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Figures of up to 120 seconds, one for each, the oldest first; the last is of now."""

    requests_in_flight: tuple[int, ...] = ()
    checked_out: tuple[int, ...] = ()


def summed(histories: Iterable[Points]) -> Seconds:
    """Returns the sums of several processes at each second.

    A second that a process lacks is one in which its event loop was blocked or late, so it had
    what it had before; before its first point, it had nothing.
    """
    known = [{second: figures for second, *figures in points} for points in histories if points]
    if not known:
        return Seconds()
    newest = max(max(each) for each in known)
    oldest = max(newest - SECONDS + 1, min(min(each) for each in known))
    totals = [[0, 0] for _ in range(oldest, newest + 1)]
    for each in known:
        now = [0, 0]
        for total, second in zip(totals, range(oldest, newest + 1), strict=True):
            now = each.get(second, now)
            total[0] += now[0]
            total[1] += now[1]
    flight, out = zip(*totals, strict=True)
    return Seconds(requests_in_flight=flight, checked_out=out)
