"""What a plot shows, and the same as numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.template.loader import render_to_string

from generation.charts.axes import round_values, seconds_axis, time_axis
from generation.charts.plots import HEIGHT, WIDTH, Caption, lines, stacks
from generation.charts.sparklines import BARS, spark
from generation.charts.stylesheet import stylesheet

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
CAPTION = Caption("Requests", "By status.")


def drawn(plot) -> ET.Element:
    html = render_to_string("generation/plot.html", {"plot": plot})
    return ET.fromstring(f"<div>{html}</div>")


def heights(path: str) -> list[tuple[float, float]]:
    """Where each bar of a path stands, and how high it is."""
    bars = re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)h", path)
    return [(float(floor), float(floor) - float(top)) for floor, top in bars]


def test_lines_stay_within_the_plot_and_each_has_its_key_and_its_numbers():
    series = {"median": [(0, 1.0), (5, 12.0), (10, 3.0)], "none": [], "slow": [(5, 40.0)]}
    page = drawn(lines(CAPTION, seconds_axis(10), series))
    polylines = page.findall(".//polyline")
    assert len(polylines) == 2, "a line without points is left out"
    for line in polylines:
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    assert [key.tail for key in page.findall(".//li/i")] == ["median", "slow"]
    rows = [[cell.text for cell in row] for row in page.findall(".//tbody/tr")]
    assert rows == [["0.0 s", "1", "–"], ["5.0 s", "12", "40"], ["10.0 s", "3", "–"]]


def test_bars_of_one_time_stand_on_each_other_and_are_as_high_as_their_values():
    series = {"succeeded": [2, 0, 4], "failed": [1, 1, 0], "never": [0, 0, 0]}
    axis = time_axis(NOON, NOON + timedelta(minutes=15), UTC)
    plot = stacks(CAPTION, axis, series, colours={"failed": "plot-bad"})
    assert [key.label for key in plot.legend] == ["succeeded", "failed"]
    good, bad = plot.bars
    assert bad.colour == "plot-bad"
    unit = HEIGHT / 4
    assert heights(good.path) == [(HEIGHT, 2 * unit), (HEIGHT, 4 * unit)]
    assert heights(bad.path) == [(HEIGHT - 2 * unit, unit), (HEIGHT, unit)]
    assert good.path.split()[0] == bad.path.split()[0], "they begin at the same place"
    assert plot.table[1] == ("2026-01-31 12:05", "0", "1")


def test_the_numbers_are_written_as_text():
    plot = lines(CAPTION, seconds_axis(10), {"median": [(5, 1.0)]}, write=lambda _: "<1 & 2>")
    assert "<td>&lt;1 &amp; 2&gt;</td>" in plot.numbers


def test_a_plot_without_data_says_so():
    page = drawn(lines(CAPTION, seconds_axis(10), {"median": []}))
    assert "No data." in "".join(page.itertext())
    assert not page.findall(".//table")


def test_a_line_of_one_point_is_seen():
    page = drawn(lines(CAPTION, seconds_axis(10), {"median": [(5, 1.0)]}))
    line = page.find(".//polyline")
    ends = line.get("points").split()
    assert len(ends) == 2, "browsers draw nothing for a polyline of one point"
    assert "plot-point" in line.get("class"), "a dot as small as a line is wide is hardly seen"
    assert "stroke-linecap: round" in stylesheet(), "nor for one without a length or round ends"


def test_what_a_plot_says_is_escaped():
    plot = lines(Caption("<b>"), seconds_axis(1), {"<script>": [(0, 1.0)]})
    assert "<script" not in render_to_string("generation/plot.html", {"plot": plot})


@pytest.mark.parametrize("top", [0.0003, 0.9, 1, 7, 10, 31, 999, 5000, 123_456])
def test_a_scale_is_round_and_reaches_the_top(top):
    values = round_values(top)
    assert 3 <= len(values) <= 7
    assert values[0] == 0
    assert values[-2] < top <= values[-1]


@pytest.mark.parametrize("hours", [1, 6, 24, 7 * 24, 30 * 24, 90 * 24])
def test_marks_of_time_are_round_by_the_clock_on_the_wall(hours):
    since = datetime(2026, 10, 25, 0, 35, tzinfo=UTC) - timedelta(hours=hours / 2)
    axis = time_axis(since, since + timedelta(hours=hours), ZoneInfo("Europe/Berlin"))
    assert 2 <= len(axis.marks) <= 9, "summer time ends in this range"
    assert len({mark.label for mark in axis.marks}) == len(axis.marks)
    assert all(0 <= mark.at <= 100 for mark in axis.marks)
    assert sorted(mark.at for mark in axis.marks) == [mark.at for mark in axis.marks]
    for mark in axis.marks:
        assert mark.label.endswith(("0", "Sep", "Oct", "Nov", "Dec")), mark


def test_equal_values_are_equal_bars_of_a_sparkline_however_many_share_one():
    for count in (1, 2, 12, 31, 72, 84, 96, 120):
        svg = ET.fromstring(spark(dict.fromkeys(range(count), 7.0), count))
        path = svg[0].get("d")
        bars = re.findall(r"v-(\d+)h2v\1h1", path)
        assert path == "M0 24" + "".join(f"v-{height}h2v{height}h1" for height in bars)
        assert svg.get("viewBox") == f"0 0 {3 * len(bars)} 24"
        assert len(bars) <= BARS
        whole = bars if count % len(bars) == 0 else bars[:-1]
        assert set(whole) == {"24"}, count
    small = ET.fromstring(spark({0: 1000, 5: 0.001, 7: 0}, 10))[0].get("d")
    assert small == "M0 24v-24h2v24h1" + "h3" * 4 + "v-2h2v2h1" + "h3" * 4, "each but 0 is seen"
    assert ET.fromstring(spark({}, 0))[0].get("d") == "M0 24"
