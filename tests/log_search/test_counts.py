"""The counts beside the list are those of the log, and no statement counts the log for them."""

from __future__ import annotations

from collections import Counter

from django.db import connection
from django.test.utils import CaptureQueriesContext

from generation.log_search.counts import DIMENSIONS, count
from generation.log_search.selection import parse_query

DAYS = "created_at_from_0=2026-01-30&created_at_to_0=2026-01-30"
HOURS = (
    "created_at_from_0=2026-01-29&created_at_from_1=13:05"
    "&created_at_to_0=2026-01-31&created_at_to_1=07:40"
)


def counted(query: str):
    asked, _faults = parse_query(query)
    return asked, count(asked)


def test_each_value_has_the_rows_that_its_filter_would_find(logs, rolled, subtests):
    for query in (DAYS, HOURS, f"{DAYS}&model=common", f"{HOURS}&status=failed&provider=anthropic"):
        with subtests.test(query):
            asked, counts = counted(query)
            within = [log for log in logs if asked.since <= log.created_at < asked.until]
            wanted = {name: getattr(asked, name) for name in DIMENSIONS if getattr(asked, name)}
            for name in DIMENSIONS:
                others = [each for each in wanted if each != name]
                found = Counter(
                    getattr(log, name)
                    for log in within
                    if all(getattr(log, each) == wanted[each] for each in others)
                )
                del found[""]
                assert counts.by[name] == found
            assert counts.total == sum(
                all(getattr(log, each) == value for each, value in wanted.items()) for log in within
            )


def test_counts_are_those_of_an_http_status_if_one_is_asked_for(logs, rolled):
    for status in ("529", "none"):
        asked, counts = counted(f"{HOURS}&http_status={status}")
        found = [
            log
            for log in logs
            if asked.since <= log.created_at < asked.until
            and str((log.attempts or [{}])[-1].get("status", "none")) == status
        ]
        assert counts.total == len(found) > 0
        assert counts.by["model"] == Counter(log.model for log in found)


def test_counts_are_left_out_where_the_rollups_cannot_know_them(logs, rolled, subtests):
    for query in (f"{DAYS}&user=1", f"{DAYS}&cost_min=1", f"{DAYS}&stop_reason=end_turn"):
        with subtests.test(query):
            _asked, counts = counted(query)
            assert not counts.is_known
            assert counts.total is None
            assert counts.by["model"], "the values are still offered"
    for query in ("", f"{DAYS}&created_at_to_1=07:41:30"):
        with subtests.test(query):
            assert counted(query)[1].total is None, "not exactly known"


def test_without_rollups_nothing_is_counted(logs):
    _asked, counts = counted(DAYS)
    assert (counts.is_known, counts.total) == (False, None)


def test_counting_does_not_read_the_log(logs, rolled):
    with CaptureQueriesContext(connection) as queries:
        counted(HOURS)
    assert not [query["sql"] for query in queries if "generation_generationlog" in query["sql"]]
