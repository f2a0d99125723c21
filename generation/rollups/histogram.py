"""Histograms of milliseconds that can be added up: eight steps for each power of two. Pure.

A time read from one is wrong by at most 4.6 %; below 16 ms each millisecond has a step of its own.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PER_POWER_OF_TWO = 8
_POWERS = 24  # up to 4.6 hours; what takes longer is in the last step

# Where each step after the first begins. Whole numbers, so that SQL and Python can't differ.
BOUNDS = sorted({math.ceil(2 ** (n / PER_POWER_OF_TWO)) for n in range(_POWERS * PER_POWER_OF_TWO)})


def step_of(ms: int) -> int:
    """Returns the step of a time: what PostgreSQL's `width_bucket(ms, BOUNDS)` does."""
    return bisect_right(BOUNDS, ms)


def percentiles(counts: Mapping[int, int], shares: Iterable[float]) -> list[float]:
    """Returns, for each share, the milliseconds that it of the times come before; 0.0 if there are
    no times.

    `counts`: how many times each step has.
    """
    steps = sorted(counts)
    below = list(accumulate(counts[step] for step in steps))
    if not below:
        return [0.0 for _ in shares]
    # The rank is what `telemetry.durations.percentile` counts.
    ranks = (min(below[-1] - 1, int(share * below[-1])) for share in shares)
    return [middle_ms(steps[bisect_right(below, rank)]) for rank in ranks]


def middle_ms(step: int) -> float:
    """Returns the middle of the whole milliseconds that a step stands for."""
    if step == 0:
        return 0.0
    first = BOUNDS[step - 1]
    last = BOUNDS[step] - 1 if step < len(BOUNDS) else first
    return (first + last) / 2
