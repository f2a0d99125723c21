"""Steps of one request, one under the other, by when each ran. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.charts.axes import Mark, round_values

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PERCENT = 0.4  # so that a step of a millisecond is seen


@dataclass(frozen=True, slots=True)
class Step:
    label: str
    started_ms: int
    ms: int
    colour: str
    aside: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    step: Step
    x: str  # in per cent
    width: str


@dataclass(frozen=True, slots=True)
class Waterfall:
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


def waterfall(steps: Sequence[Step], total_ms: int) -> Waterfall:
    """Returns the steps over the time from 0 to `total_ms`, or to the end of the last."""
    end = max(total_ms, *(step.started_ms + step.ms for step in steps), 1)
    bars = []
    for step in steps:
        x = min(100 * step.started_ms / end, 100 - LEAST_PERCENT)
        width = max(100 * step.ms / end, LEAST_PERCENT)
        bars.append(Bar(step, f"{x:.2f}", f"{min(width, 100 - x):.2f}"))
    marks = [Mark(100_000 * value / end, f"{value:g} s") for value in round_values(end / 1000)]
    return Waterfall(tuple(bars), tuple(mark for mark in marks if mark.at <= 100))
