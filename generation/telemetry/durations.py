"""Durations counted in the process, and the one definition of a percentile."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RECENT = 4096  # percentiles are of the most recent durations, this many


def percentile(ordered: Sequence[float], share: float) -> float:
    """Returns the value that `share` of the sorted values come before, 0.0 where there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Durations:
    """Counts durations since start, in seconds, and keeps the most recent for percentiles."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.max = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.max = max(self.max, seconds)
        self._recent.append(seconds)

    def summary(self) -> dict[str, float]:
        """Returns milliseconds: mean and max since start, percentiles of the last 4,096."""
        ordered = sorted(self._recent)
        values = {
            "mean_ms": self.total / self.count if self.count else 0.0,
            "p50_ms": percentile(ordered, 0.50),
            "p95_ms": percentile(ordered, 0.95),
            "p99_ms": percentile(ordered, 0.99),
            "max_ms": self.max,
        }
        return {
            "count": self.count,
            **{name: round(seconds * 1000, 3) for name, seconds in values.items()},
        }
