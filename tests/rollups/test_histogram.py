"""A percentile from a histogram is that of the times, but for a twentieth."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from generation.rollups.histogram import percentiles, step_of
from generation.telemetry import durations

SHARES = (0.5, 0.95, 0.99)


@given(st.lists(st.integers(0, 10_000_000), min_size=1), st.sampled_from(SHARES))
def test_a_percentile_is_at_most_a_twentieth_off(times, share):
    [found] = percentiles(Counter(map(step_of, times)), [share])
    exact = durations.percentile(sorted(times), share)
    assert abs(found - exact) <= exact * 0.046
    if exact < 17:
        assert found == exact


@given(st.lists(st.integers(0, 10_000_000)), st.lists(st.integers(0, 10_000_000)))
def test_histograms_of_parts_add_up_to_that_of_the_whole(some, others):
    parts = Counter(map(step_of, some)) + Counter(map(step_of, others))
    assert parts == Counter(map(step_of, some + others))


def test_no_times_have_no_percentiles():
    assert percentiles({}, SHARES) == [0.0, 0.0, 0.0]
