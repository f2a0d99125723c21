"""What an address asks for; a value that can't be meant is named and left out."""

from __future__ import annotations

import pytest

from generation.log_search.selection import Selection, parse_query

WRONG = {
    "cost_min": ["a", "-1", "NaN", "Infinity", "1e99", "1e-99999", "$1"],
    "latency_min": ["2,5", "-0.1", "9" * 30],
    "tokens_min": ["1.5", "many", "-4"],
    "status": ["fialed", "Failed"],
    "http_status": ["5xx", "0", "5290", "200 OK"],
    "model": ["a%00b", "m" * 201],
    "q": ["%00"],
    "created_at_from_0": ["yesterday", "2026-02-30", "0001-01-01", "%00"],
    "created_at_to_0": ["9999-12-31"],
    "created_at_from_0=9999-12-31&created_at_from_1": ["19:00"],
    "created_at_to_0=2026-01-31&created_at_to_1": ["25:00", "noon"],
    "created_at_from_1": ["11:00"],  # of no day
    "created_at_to_0=2026-01-30&created_at_from_0": ["2026-01-31"],  # the end is before it
}


def test_a_value_that_cannot_be_meant_gets_a_sentence_and_filters_nothing(subtests):
    for name, values in WRONG.items():
        for value in values:
            with subtests.test(name, value=value):
                asked, faults = parse_query(f"{name}={value}")
                assert len(faults) == 1
                assert "was ignored, because" in faults[0]
                assert asked == Selection()


@pytest.mark.parametrize("query", ["", "q=&retried=&created_at_from_1=", "retried=0"])
def test_what_is_empty_asks_for_nothing(query):
    assert parse_query(query) == (Selection(), [])
