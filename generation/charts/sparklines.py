"""Bars of a few pixels, for a cell of a table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH, HEIGHT = 120, 24
BARS = 40
_BAR = WIDTH // BARS


def spark(values: Mapping[int, float], count: int) -> str:
    """Returns the path of an SVG of WIDTH × HEIGHT, which has the values at their places of
    `count` side by side; several may share a bar. Each that is not 0 is seen."""
    bars = [0.0] * min(count, BARS)
    for place, value in values.items():
        bars[place * len(bars) // count] += value
    top = max(bars, default=0.0) or 1.0
    width = WIDTH // len(bars) if bars else _BAR
    return "".join(
        f"M{number * width} {HEIGHT}v-{max(round(value / top * HEIGHT), 2)}h{width - 1}V{HEIGHT}"
        for number, value in enumerate(bars)
        if value
    )
