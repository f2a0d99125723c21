"""A search finds what the log has, in bounded statements, within its budget."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.db.models.sql import Query
from django.test.utils import CaptureQueriesContext

from generation.log_search import buckets, guide, walk
from generation.log_search import search as searching
from generation.log_search import sought as seeking
from generation.log_search.guide import OnlyWhere, Range
from generation.log_search.guide import rolled as rolled_ids
from generation.log_search.places import SearchPlaces
from generation.models import Maintenance, Rollup
from generation.partitions.intervals import ZERO_ID, moment_of
from tests.support.admin import keys, make_log, save
from tests.support.log_search import leaf_through, sought


def http_status(log) -> int | None:
    return log.attempts[-1].get("status") if log.attempts else None


# Each filter as the address has it, and as the rows have it.
FILTERS = {
    "": lambda log: True,
    "model=rare": lambda log: log.model == "rare",
    "model=common": lambda log: log.model == "common",
    "model=none": lambda log: False,
    "provider=openai": lambda log: log.provider == "openai",
    "status=failed": lambda log: log.status == "failed",
    "status=succeeded": lambda log: log.status == "succeeded",
    "error_type=llm-timed-out": lambda log: log.error_type == "llm-timed-out",
    "model=rare&status=failed": lambda log: log.model == "rare" and log.status == "failed",
    "stop_reason=max_tokens": lambda log: log.stop_reason == "max_tokens",
    "http_status=529": lambda log: http_status(log) == 529,
    "http_status=none": lambda log: http_status(log) is None,
    "http_status=404": lambda log: False,
    "stop_reason=refusal": lambda log: False,
    "cost_min=0.5": lambda log: (log.cost_usd or 0) >= 0.5,
    "cost_min=2": lambda log: (log.cost_usd or 0) >= 2,
    "cost_min=2.01": lambda log: False,
    "latency_min=2.001": lambda log: log.latency_ms >= 2001,
    "latency_min=60": lambda log: log.latency_ms >= 60_000,
    "latency_min=90": lambda log: False,
    "tokens_min=31": lambda log: (log.total_tokens or 0) >= 31,
    "tokens_min=5001": lambda log: False,
    "model=rare&stop_reason=end_turn&cost_min=0.01": lambda log: (
        log.model == "rare" and log.stop_reason == "end_turn" and bool(log.cost_usd)
    ),
    "retried=1": lambda log: len(log.attempts) > 1,
    "fell_back=1": lambda log: len(log.attempts) > 1 and log.attempts[0] != log.attempts[1],
    "user=2": lambda log: log.user_id == 2,
    "user=nobody": lambda log: False,
    "user=2&model=rare": lambda log: log.user_id == 2 and log.model == "rare",
    "api_key=2": lambda log: log.api_key_id == 2,
    "created_at_from_0=2026-01-30&created_at_from_1=20:00&model=rare": lambda log: (
        log.model == "rare" and log.created_at.isoformat() >= "2026-01-30T20"
    ),
}


def expected(logs, query: str) -> list:
    return keys(log for log in logs if FILTERS[query](log))


def test_all_pages_are_the_whole_in_either_direction(logs, rolled, subtests):
    for query in FILTERS:
        for side in ("before", "after"):
            with subtests.test(query, side=side):
                wanted = expected(logs, query)
                found, _pages = leaf_through(query, side)
                assert found == (wanted if side == "before" else wanted[::-1])


def test_rows_that_the_rollups_do_not_have_are_found_too(logs, rolled, subtests):
    """They lag by half a minute, and reach back as far as they have come."""
    early = make_log(2000, model="rare")
    late = make_log(-600, model="rare")
    save(early, late)
    Rollup.objects.filter(minutes=5, bucket__lt=early.created_at).delete()
    newest, oldest = logs[0].created_at, early.created_at
    for watermark, back_to in ((newest, oldest), (None, None)):
        Maintenance.objects.filter(task="rollups").update(watermark=watermark, back_to=back_to)
        with subtests.test(str(watermark)):
            rows = [late, *(log for log in logs if log.model == "rare")]
            if watermark is None:
                rows.append(early)
            assert set(leaf_through("model=rare")[0]) >= set(keys(rows))


def guided(query: str, logs) -> tuple[list[Range], UUID]:
    """The ranges to which the rollups lead, and how far they are all."""
    whole = Range(logs[-1].pk, UUID(int=logs[0].pk.int + 1))
    asked = sought(query).asked
    known = OnlyWhere("default", asked, whole, rolled_ids(), newest_first=True)
    ranges: list[Range] = []
    while True:
        more, edge = known.take(timedelta(days=60), 1000)
        if not more:
            return ranges, edge
        ranges += more


def test_a_search_for_something_rare_reads_a_few_minutes_around_it(logs, rolled):
    wanted = expected(logs, "model=rare")
    ranges, edge = guided("model=rare", logs)
    assert edge == logs[-1].pk
    assert all(any(part.start <= key < part.end for part in ranges) for key in wanted)
    read = sum((moment_of(part.end) - moment_of(part.start) for part in ranges), timedelta(0))
    assert read <= len(wanted) * timedelta(minutes=6), "of two days"


def test_of_what_the_rollups_know_to_be_nowhere_nothing_is_read(logs, rolled, subtests):
    none = ("model=none", "stop_reason=refusal", "cost_min=2.01", "latency_min=90")
    for query in (*none, "tokens_min=5001", "model=rare&provider=anthropic"):
        with subtests.test(query):
            assert guided(query, logs) == ([], logs[-1].pk)


def test_no_row_is_lost_between_two_statements_on_the_rollups(logs, rolled, monkeypatch, subtests):
    """Each looks through some of the time, and divides some of the rollups of six hours, of which
    one may have a high cost and a stop reason that no request has both."""
    monkeypatch.setattr(guide, "FIRST", 1)
    monkeypatch.setattr(guide, "MOST", 3)
    monkeypatch.setattr(buckets, "DIVIDED", 2)
    for at_once in (timedelta(hours=1), timedelta(hours=7), timedelta(days=1)):
        monkeypatch.setattr(buckets, "AT_ONCE", at_once)
        for query in ("cost_min=0.5", "model=rare&stop_reason=end_turn&cost_min=0.01"):
            for side in ("before", "after"):
                with subtests.test(query, side=side, at_once=at_once):
                    wanted = expected(logs, query)
                    found, _pages = leaf_through(query, side)
                    assert found == (wanted if side == "before" else wanted[::-1])


def test_no_row_is_lost_where_statements_on_the_rollups_are_cut_off(logs, rolled, monkeypatch):
    calls = []
    divide = buckets.Buckets._divide

    def cut_off_first(self):
        calls.append(self)
        if len(calls) % 2:
            raise walk.CutOff
        divide(self)

    monkeypatch.setattr(buckets.Buckets, "_divide", cut_off_first)
    assert leaf_through("cost_min=2")[0] == expected(logs, "cost_min=2")
    assert len(calls) > 2


class Ticking:
    """A clock on which every look takes half a second."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 0.5
        return self._now


def let_tick(monkeypatch) -> None:
    """The budget is for a few looks, and so for a few statements."""
    monkeypatch.setattr(walk, "BUDGET_S", 4)
    clock = Ticking()
    for module in (walk, seeking):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("query", ["stop_reason=max_tokens", "model=common&retried=1"])
def test_a_search_without_time_goes_on_from_where_it_ended(logs, rolled, monkeypatch, side, query):
    """It never repeats a row, and never leaves one out."""
    let_tick(monkeypatch)
    monkeypatch.setattr(walk, "LEAST_EFFORT", timedelta(minutes=30))
    asked = sought(query).asked
    wanted = keys(
        log
        for log in logs
        if (log.stop_reason == asked.stop_reason or not asked.stop_reason)
        and (log.model == asked.model or not asked.model)
        and (len(log.attempts) > 1 or not asked.retried)
    )
    found, pages = leaf_through(query, side, size=1000)
    assert found == (wanted if side == "before" else wanted[::-1])
    assert pages > 10, "each of them says how far it came"


def test_a_statement_that_takes_too_long_is_followed_by_smaller_ones(logs, monkeypatch):
    monkeypatch.setattr(walk, "BUDGET_S", 60)
    monkeypatch.setattr(walk, "STATEMENT_S", 0.04)
    searched = sought("stop_reason=max_tokens")
    searched.logs = searched.logs.extra(where=["pg_sleep(0.002) IS NOT NULL"])  # for each row
    page = searching.search(searched, size=1000)
    wanted = [log.pk for log in logs if log.stop_reason == "max_tokens"]
    assert [row.pk for row in page.rows] == wanted
    assert page.edge is None


def test_no_statement_may_take_longer_than_its_search(logs, monkeypatch):
    """It began in time, but would end long after the page should be there."""
    given = []

    def noted(alias, limit_s):
        given.append((limit_s, searched.began + walk.BUDGET_S - time.monotonic()))
        return limited(alias, limit_s)

    limited = walk.limited
    monkeypatch.setattr(walk, "limited", noted)
    monkeypatch.setattr(walk, "BUDGET_S", 0.3)
    searched = sought("status=succeeded")
    searched.logs = searched.logs.extra(where=["pg_sleep(0.01) IS NOT NULL"])  # for each row
    page = searching.search(searched, size=1000)
    assert page.edge is not None
    assert len(given) > 1, "the limit never changes"
    assert all(limit <= max(left, walk.LEAST_S) + 0.01 for limit, left in given)


def test_the_orm_makes_the_sql_of_a_search_once(logs, monkeypatch):
    """It takes it two milliseconds, and a search that finds nothing has fifty statements."""
    made = []
    original = Query.sql_with_params
    monkeypatch.setattr(
        Query, "sql_with_params", lambda query: made.append(query) or original(query)
    )
    with CaptureQueriesContext(connection) as queries:
        searching.search(sought("user=1&stop_reason=x"), size=1000)
    assert len(queries) > 2
    assert len(made) == 1


class Parts:
    """A guide of these parts of the log. In place of None, its own statement takes too long."""

    def __init__(self, *parts: Range | None) -> None:
        self._parts = list(parts)

    def take(self, effort, wanted):
        if not self._parts:
            return [], ZERO_ID
        part = self._parts.pop(0)
        if part is None:
            raise walk.CutOff
        return [part], part.start


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_part_is_divided_into_milliseconds_at_least(logs, monkeypatch, newest_first):
    """Ids know no less: half a millisecond of them is nothing, and the search would never end."""
    monkeypatch.setattr(walk, "FIRST_EFFORT", timedelta(microseconds=1500))
    monkeypatch.setattr(walk, "BUDGET_S", 60)
    guide = Parts(Range(logs[20].pk, UUID(int=logs[0].pk.int + 1)))
    found = walk.Walk(sought(""), guide, newest_first=newest_first).run(1000, edge=ZERO_ID)
    wanted = keys(logs[:21])
    assert [row.pk for row in found.rows] == (wanted if newest_first else wanted[::-1])


def test_no_row_is_read_again_after_a_guide_that_took_too_long(logs, monkeypatch):
    monkeypatch.setattr(walk, "BUDGET_S", 60)
    oldest, middle, end = logs[-1].pk, logs[200].pk, UUID(int=logs[0].pk.int + 1)
    guide = Parts(Range(middle, end), None, Range(oldest, middle))
    found = walk.Walk(sought(""), guide, newest_first=True).run(1000, edge=end)
    assert [row.pk for row in found.rows] == keys(logs)
    assert found.edge is None


def test_as_many_long_searches_as_may_be_at_once_and_no_more(logs, monkeypatch):
    let_tick(monkeypatch)
    none_left = SearchPlaces(at_once=1)
    monkeypatch.setattr(walk, "places", none_left)
    with none_left.taken():
        page = searching.search(sought("stop_reason=max_tokens"), size=1000)
        assert page.is_refused
        assert page.edge is not None, "what it found until then is kept"
    assert not searching.search(sought("stop_reason=max_tokens"), size=1000).is_refused


def test_an_empty_log_is_searched_to_its_end(committed):
    for query in ("", "model=rare", "stop_reason=x", "user=1"):
        assert leaf_through(query) == ([], 1)
