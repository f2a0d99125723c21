"""What one user or API key spent over a time, on its own page and beside its name."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from html import escape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from generation.admin.overview import spenders, spending, sums
from generation.admin.overview.periods import PERIODS, window
from generation.admin.overview.sums import Sums
from generation.models import ApiKey, GenerationLog
from generation.rollups.buckets import MINUTE, floor
from tests.support.admin import KEYS, LOGS, arrived, get
from tests.support.keys import make_key
from tests.support.rollups import roll_up

DASHBOARD, SPENDING = f"{LOGS}dashboard/", f"{LOGS}spending/"
SPENDERS = [("user", "1"), ("user", "17"), ("user", ""), ("key", "7"), ("key", "0")]
DAY = 60 * 24

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


@pytest.fixture
def spent(staff):
    """A client of the admin, and requests of 90 days and the 90 before, by several people."""
    make_key(name="a backend's", id=7)
    costs = iter(range(1, 1000))
    for minutes in (5, 50, 70, 60 * 5, 60 * 20, DAY * 3, DAY * 6, DAY * 29, DAY * 80, DAY * 100):
        for user, key in ((1, None), (1, 7), (17, 7), (None, None)):
            model = ("new", "claude")[minutes % 3 == 0]
            arrived(minutes, next(costs), user_id=user, api_key_id=key, model=model)
    arrived(10, None, user_id=1, input_tokens=None, output_tokens=None, status="failed")
    arrived(11, None, user_id=1, api_key_id=7, model="unpriced")
    roll_up()
    return staff


def logs_of(kind: str, key: str) -> list[GenerationLog]:
    if kind == "user":
        return list(GenerationLog.objects.filter(user_id=key or None))
    return list(GenerationLog.objects.filter(api_key_id=int(key) or None))


def summed(logs: list[GenerationLog], span=None) -> Sums:
    """What a spender's figures have to be, from the log's rows that arrived in a span."""
    logs = [log for log in logs if span is None or span.since <= log.created_at < span.until]
    unpriced = [log for log in logs if log.cost_usd is None]
    return Sums(
        requests=len(logs),
        succeeded=sum(log.status == "succeeded" for log in logs),
        priced=len(logs) - len(unpriced),
        unpriced=sum(log.status == "succeeded" for log in unpriced),
        input_tokens=sum(log.input_tokens or 0 for log in logs),
        output_tokens=sum(log.output_tokens or 0 for log in logs),
        cost=sum((log.cost_usd or Decimal(0) for log in logs), Decimal(0)),
    )


def test_spending_is_what_the_log_has_in_each_period_and_time_zone(spent):
    for period in PERIODS:
        with sums.reading() as (cursor, progress):
            cursor.execute("SET LOCAL TIME ZONE 'America/St_Johns'")  # half an hour off
            watermark = progress[0]
            ranking = spenders.rank(cursor, window(period, watermark), watermark)
            found = {each: spending.read(cursor, *each, period, watermark) for each in SPENDERS}
        listed = {
            **{("user", each.key): each for each in ranking.users},
            **{("key", each.key): each for each in ranking.keys},
        }
        for spender, each in found.items():
            case, logs, span = (period.name, spender), logs_of(*spender), each.window.span
            assert each.now == summed(logs, span), case
            assert each.whole == summed(logs, each.window.whole), case
            assert each.before == summed(logs, each.window.before), case
            points, models = defaultdict(list), defaultdict(list)
            costs: defaultdict[Any, Decimal] = defaultdict(Decimal)
            for log in logs:
                if span.since <= log.created_at < span.until:
                    point = (log.created_at - each.drawn.since) // (each.step * MINUTE)
                    points[point].append(log)
                    models[log.provider, log.model].append(log)
                    costs[log.provider, log.model, point] += log.cost_usd or Decimal(0)
            assert each.by_point == {point: summed(rows) for point, rows in points.items()}, case
            assert max(each.by_point) < each.points
            if spender[0] == "user":
                assert each.models == {model: summed(rows) for model, rows in models.items()}, case
                assert {
                    (*model, point): cost
                    for model, series in each.cost_by_model.items()
                    for point, cost in series.items()
                } == costs, case
            assert listed[spender].cost == each.now.cost, "the dashboard's figure is the page's"
            assert sum(listed[spender].cost_by_point.values()) == float(each.now.cost), case


def test_the_cost_over_time_beside_a_name_has_its_bar_where_the_log_has_the_cost(staff):
    logs = [arrived(minutes, cost) for minutes, cost in ((5, 1), (60 * 30, 2), (DAY * 5, 4))]
    roll_up()
    (week,) = (period for period in PERIODS if period.name == "7d")
    with sums.reading() as (cursor, progress):
        ranking = spenders.rank(cursor, window(week, progress[0]), progress[0])
    start = floor(ranking.window.span.since, 360)
    assert ranking.users[0].cost_by_point == {
        (log.created_at - start) // (360 * MINUTE): float(log.cost_usd) for log in logs
    }


def test_the_dashboard_leads_to_a_page_that_leads_to_just_those_generations(spent, settings):
    settings.TIME_ZONE = "America/St_Johns"
    for period in PERIODS:
        _, users, keys = get(spent, DASHBOARD, period=period.name).context["tables"]
        for row in users["rows"] + keys["rows"]:
            page = get(spent, row.spark_url)
            cost, requests, *_ = page.context["tiles"]
            assert (cost.value, requests.value) == (row.cost, row.requests), row.name
            assert bool(page.context["logs_url"]) == bool(row.url), row.name
            if row.url:
                found = get(spent, page.context["logs_url"]).context["cl"].result_list
                assert str(len(found)) == row.requests, (period.name, row.name)


def test_the_page_takes_three_statements_on_the_rollups(spent):
    with CaptureQueriesContext(connection) as queries:
        page = get(spent, SPENDING, user="1", period="7d")
    ours = [query["sql"] for query in queries if "generation_" in query["sql"]]
    assert len(ours) == 2, "and one for the user's name"
    assert not [sql for sql in ours if "generation_generationlog" in sql]
    assert page.context["title"] == "Spending: user1"
    assert {row.name for row in page.context["table"]["rows"]} == {"claude", "new", "unpriced",
        "claude-sonnet-5-5"}  # fmt: skip
    assert 'href="?user=1&amp;period=30d"' in page.html, "another period is of the same user"


def test_an_api_key_leads_to_its_spending_which_is_not_by_model(spent):
    key = ApiKey.objects.get(pk=7)
    address = f"{SPENDING}?api_key=7&amp;period=24h"
    assert address in get(spent, f"{KEYS}{key.pk}/change/").html
    page = get(spent, SPENDING, api_key="7")
    assert page.context["title"] == "Spending: a backend's"
    assert page.context["table"]["rows"] == []
    assert "not summed by model" in page.html


def test_who_is_gone_keeps_their_spending_and_who_never_was_gets_a_sentence(spent):
    page = get(spent, SPENDING, user="17")
    assert page.context["title"] == "Spending: 17"
    assert "deleted" in page.html
    assert "Models" in page.html
    assert page.context["tiles"][1].value != "0"
    for query in ({"user": "4711"}, {"api_key": "4711"}):
        assert "of this key now" in get(spent, SPENDING, **query).html


def test_an_address_that_can_name_nobody_is_not_found(staff):
    for query in (
        *("", "user=1&api_key=7", "user=-1", "user=01", "user=one", "user=%00"),
        *("api_key=", "api_key=-7", "api_key=07", "api_key=٧"),
        *(f"user={25 * '9'}", f"api_key={19 * '9'}"),
    ):
        assert staff.get(f"{SPENDING}?{query}").status_code == 404, query


def test_a_name_is_shown_as_it_is(spent):
    name = "<b>" + 147 * "ß"
    User.objects.filter(pk=1).update(username=name)
    ApiKey.objects.filter(pk=7).update(name=name[:64])
    for page in (
        get(spent, DASHBOARD),
        get(spent, SPENDING, user="1"),
        get(spent, SPENDING, api_key="7"),
    ):
        assert escape(name[:64]) in page.html
        assert "<b>ß" not in page.html
