"""A window holds its moment, begins at midnight where its zone is, and the next one adjoins it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.limits.windows import EVER, window_at

ZONES = [
    "UTC",
    "Asia/Tokyo",
    "Europe/Berlin",
    "America/Sao_Paulo",  # skipped midnights
    "Pacific/Apia",  # skipped a whole day
    "Atlantic/Azores",  # has had two midnights
    "Asia/Kathmandu",
]
MOMENTS = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001  # as the strategy wants them
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001  # as the strategy wants them
    timezones=st.just(UTC),
)
BERLIN = ZoneInfo("Europe/Berlin")


@given(MOMENTS, st.sampled_from(ZONES), st.sampled_from(["day", "week", "month"]))
def test_windows_adjoin_without_gap_or_overlap(moment, name, kind):
    zone = ZoneInfo(name)
    window = window_at(kind, zone, moment)
    assert window.start <= moment < window.end
    assert window_at(kind, zone, window.start) == window
    assert window_at(kind, zone, window.end - timedelta(microseconds=1)) == window
    assert window_at(kind, zone, window.end).start == window.end


@pytest.mark.parametrize(
    ("kind", "zone", "moment", "start", "end"),
    [
        ("day", "Asia/Tokyo", "2026-01-01T15:00", "2026-01-01T15:00", "2026-01-02T15:00"),
        ("day", "Asia/Tokyo", "2026-01-01T14:59:59", "2025-12-31T15:00", "2026-01-01T15:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("week", "UTC", "2026-11-29T23:59", "2026-11-23T00:00", "2026-11-30T00:00"),
        ("month", "UTC", "2026-01-31T09:30", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("month", "Europe/Berlin", "2026-12-31T23:00", "2026-12-31T23:00", "2027-01-31T23:00"),
    ],
)
def test_windows_begin_at_midnight_where_their_zone_is(kind, zone, moment, start, end):
    def utc(text):
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    window = window_at(kind, ZoneInfo(zone), utc(moment))
    assert window == (utc(start), utc(end))


@pytest.mark.parametrize("kind", ["ever", "", "second", "minute", "hour"])
def test_what_has_no_windows_has_one_for_ever(kind):
    assert window_at(kind, BERLIN, datetime(2026, 1, 1, tzinfo=UTC)) == (EVER, None)
