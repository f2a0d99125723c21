"""Lines and stacked bars over an axis. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from django.utils.safestring import mark_safe

from generation.charts.axes import Axis, Mark, Write, round_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.utils.safestring import SafeString

# Of a plot's inside, in the SVG's units. It is stretched to the width that there is; a unit of its
# height is a pixel.
WIDTH, HEIGHT = 1000, 180
COLOURS = 6  # in charts.css
GAP = 0.15  # of a bar's width
TABLE_ROWS = 130  # a table of more values shows some of them

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    colour: str  # a class of charts.css
    points: str  # of an SVG polyline
    is_point: bool  # it has a single one


@dataclass(frozen=True, slots=True)
class Bars:
    """Of one colour."""

    colour: str
    path: str  # of an SVG; a third of the bytes of rectangles


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend."""

    colour: str
    label: str


@dataclass(frozen=True, slots=True)
class Caption:
    title: str
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    caption: Caption
    axis: Axis
    rows: tuple[Mark, ...]  # of the other axis; `at` in pixels from the top
    legend: tuple[Key, ...]
    lines: tuple[Line, ...]
    bars: tuple[Bars, ...]
    table: tuple[tuple[str, ...], ...]  # without its head, which is the axis and the legend
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def numbers(self) -> SafeString:
        """The table's rows as HTML. A template's loops took half the time of a page of plots."""
        rows = (escape("\t".join(row)).replace("\t", "</td><td>") for row in self.table)
        return mark_safe("".join([f"<tr><td>{row}</td></tr>" for row in rows]))  # noqa: S308  # escaped


def lines(
    caption: Caption,
    axis: Axis,
    series: Mapping[str, Sequence[Point]],
    *,
    write: Write = "{:g}".format,
    colours: Mapping[str, str] | None = None,
) -> Plot:
    """Returns a plot of points (x, y), by their line's label. A line without any is left out."""
    drawn = {label: points for label, points in series.items() if points}
    top_value = max((y for points in drawn.values() for _, y in points), default=0.0)
    values = round_values(top_value or 1.0)
    return Plot(
        caption,
        axis,
        _rows(values, write),
        legend := _legend(drawn, colours),
        lines=tuple(
            Line(key.colour, _polyline(points, axis, values[-1]), is_point=len(points) == 1)
            for key, points in zip(legend, drawn.values(), strict=True)
        ),
        bars=(),
        table=_table(axis, drawn, write),
    )


def stacks(
    caption: Caption,
    axis: Axis,
    series: Mapping[str, Sequence[float]],
    *,
    write: Write = "{:g}".format,
    colours: Mapping[str, str] | None = None,
) -> Plot:
    """Returns a plot of bars side by side from the axis' start to its end, as many as each label
    has values; those of all labels stand on each other."""
    drawn = {label: values for label, values in series.items() if any(values)}
    sums = [sum(values) for values in zip(*drawn.values(), strict=True)]
    values = round_values(max(sums, default=0.0) or 1.0)
    legend = _legend(drawn, colours)
    count = max(len(sums), 1)
    width, unit = WIDTH / count, HEIGHT / values[-1]
    bars = []
    floors = [float(HEIGHT)] * count
    for key, heights in zip(legend, drawn.values(), strict=True):
        path = ""
        for number, value in enumerate(heights):
            if value:
                path += _bar(number * width, floors[number], width, value * unit)
                floors[number] -= value * unit
        bars.append(Bars(key.colour, path))
    start, step = axis.start, (axis.end - axis.start) / count
    points = {
        label: [(start + number * step, value) for number, value in enumerate(heights)]
        for label, heights in drawn.items()
    }
    return Plot(
        caption,
        axis,
        _rows(values, write),
        legend,
        lines=(),
        bars=tuple(bars),
        table=_table(axis, points, write),
    )


def _legend(labels: Mapping[str, object], colours: Mapping[str, str] | None) -> tuple[Key, ...]:
    return tuple(
        Key((colours or {}).get(label, f"plot-{number % COLOURS + 1}"), label)
        for number, label in enumerate(labels)
    )


def _rows(values: Sequence[float], write: Write) -> tuple[Mark, ...]:
    return tuple(Mark(HEIGHT - value / values[-1] * HEIGHT, write(value)) for value in values)


def _polyline(points: Sequence[Point], axis: Axis, top: float) -> str:
    if len(points) == 1:  # of a line without a length, its round ends are seen
        points = [*points, *points]
    return " ".join(
        f"{_rounded(axis.share(x) * WIDTH)},{_rounded(HEIGHT - y / top * HEIGHT)}"
        for x, y in points
    )


def _bar(x: float, floor: float, width: float, height: float) -> str:
    gap = GAP * width
    left, bottom, top, whole = map(_rounded, (x + gap / 2, floor, floor - height, width - gap))
    return f"M{left} {bottom}V{top}h{whole}V{bottom}"


def _rounded(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")  # a page has a thousand bars


def _table(
    axis: Axis, series: Mapping[str, Sequence[Point]], write: Write
) -> tuple[tuple[str, ...], ...]:
    """Returns the numbers: a row for each place on the axis, or for some, if there are many."""
    values = {label: dict(points) for label, points in series.items()}
    places = sorted({x for points in values.values() for x in points})
    step = -(-len(places) // TABLE_ROWS) or 1
    return tuple(
        (
            axis.write(x),
            *("–" if (y := points.get(x)) is None else write(y) for points in values.values()),
        )
        for x in places[::step]
    )
