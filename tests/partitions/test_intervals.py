"""A row belongs to the week and the day of its id, in UTC, wherever its reader is."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.partitions.catalog import Found, Partition
from generation.partitions.ddl import AHEAD, Parent
from generation.partitions.intervals import (
    DAY,
    WEEK,
    day_number,
    first_id,
    interval_at,
    intervals,
    moment_of,
)
from generation.partitions.plan import covered_until, plan

ZONES = st.sampled_from([UTC, ZoneInfo("Asia/Seoul"), ZoneInfo("America/New_York")])
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=ZONES)  # noqa: DTZ001  # hypothesis adds the zone
LENGTHS = st.sampled_from([DAY, WEEK])


@given(MOMENTS, st.integers(0, (1 << 80) - 1), LENGTHS)
def test_an_id_lies_in_the_interval_of_its_moment(moment, random_bits, every):
    interval = interval_at(moment, every)
    key = UUID(int=first_id(moment).int | random_bits)
    assert interval.first_id <= key < interval.end_id
    assert moment - moment_of(key) < timedelta(milliseconds=1)
    assert interval.end - interval.start == every
    assert interval_at(interval.ends_at, every).start == interval.end


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=100)), LENGTHS)
def test_intervals_follow_each_other_without_a_gap(since, length, every):
    found = list(intervals(since, since + length, every))
    assert found[0] == interval_at(since, every)
    assert found[-1] == interval_at(since + length, every)
    assert all(one.end == next_.start for one, next_ in itertools.pairwise(found))


@given(MOMENTS, MOMENTS)
def test_rows_of_one_day_share_both_their_partitions(one, other):
    same_day = day_number(first_id(one)) == day_number(first_id(other))
    assert same_day == (interval_at(one, DAY) == interval_at(other, DAY))
    if same_day:
        assert interval_at(one, WEEK) == interval_at(other, WEEK)


def test_a_week_begins_on_monday_at_midnight_in_utc():
    seoul = ZoneInfo("Asia/Seoul")
    monday = datetime(2026, 11, 23, 8, 59, 59, tzinfo=seoul)  # Sunday, 23:59:59 UTC
    assert interval_at(monday, WEEK).start == date(2026, 11, 16)
    assert interval_at(monday + timedelta(seconds=1), WEEK).start == date(2026, 11, 23)


@pytest.mark.parametrize("key", [UUID(int=0), UUID(int=(1 << 128) - 1)])
def test_an_id_of_any_time_has_a_moment(key):
    assert moment_of(key).tzinfo is UTC


@settings(max_examples=30)
@given(MOMENTS, LENGTHS, st.integers(2, 400))
def test_what_is_planned_is_all_there_is_to_do(now, every, days):
    """Whatever there was: after the plan, a row of any storable moment has a partition."""
    kept = timedelta(days=days)
    parent = Parent("log", every)
    before = [
        Partition(parent.partition(each), each.first_id, each.end_id)
        for each in intervals(now - kept - 3 * every, now - 2 * every, every)
    ]
    steps = plan(Found(parent, now, before), kept)
    made = [Partition("", each.first_id, each.end_id) for each in steps.make]
    after = Found(parent, now, [*(p for p in before if p not in steps.detach), *made])
    again = plan(after, kept)
    assert not again.make
    assert not again.detach
    assert covered_until(after) >= now + AHEAD
    assert all(part.end <= first_id(now - kept) for part in steps.detach)
    oldest = first_id(now - min(kept, every))
    assert any(part.start <= oldest < part.end for part in after.partitions)
