"""Durations counted in the process, and the one definition of a percentile."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from generation.telemetry.snapshot import DurationSummary

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

    def summary(self) -> DurationSummary:
        ordered = sorted(self._recent)
        return DurationSummary(
            count=self.count,
            mean_ms=self.total / self.count * 1000 if self.count else 0.0,
            p50_ms=percentile(ordered, 0.50) * 1000,
            p95_ms=percentile(ordered, 0.95) * 1000,
            p99_ms=percentile(ordered, 0.99) * 1000,
            max_ms=self.max * 1000,
        )
