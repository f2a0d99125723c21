"""Bars of a few pixels, for a cell of a table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.safestring import mark_safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.utils.safestring import SafeString

HEIGHT = 24
BARS = 40
BAR, GAP = 2, 1  # their widths; the SVG is stretched to what the page has for it


def spark(values: Mapping[int, float], count: int, colour: str = "plot-1") -> SafeString:
    """Returns an SVG that has the values at their places of `count` side by side.

    Each that is not 0 is seen. As many share a bar as BARS ask for, each bar the same number, so
    that equal values look equal. `colour`: a class of charts.css.
    """
    in_a_bar = -(-count // BARS) or 1
    bars = [0.0] * -(-count // in_a_bar)
    for place, value in values.items():
        bars[place // in_a_bar] += value
    top = max(bars, default=0.0) or 1.0
    path = f"M0 {HEIGHT}"
    for value in bars:
        if value:
            height = max(round(value / top * HEIGHT), 2)
            path += f"v-{height}h{BAR}v{height}h{GAP}"
        else:
            path += f"h{BAR + GAP}"
    width = len(bars) * (BAR + GAP)
    return mark_safe(  # noqa: S308  # numbers, and a name of ours
        f'<svg class="plot-spark" viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none"'
        f' aria-hidden="true"><path class="{colour}" d="{path}"/></svg>'
    )
