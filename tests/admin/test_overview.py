"""The pages over a period: the log's figures, read from rollups alone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from generation.admin.overview import spenders, sums
from generation.admin.overview.attempts import drawn
from generation.admin.overview.dashboard import LATE_AFTER
from generation.admin.overview.periods import PERIODS, hours_of, longest_buckets, named, window
from generation.admin.overview.writing import change
from generation.models import GenerationLog, Maintenance
from generation.rollups.buckets import HOUR, MINUTE, SPENDER_LENGTHS, Span, floor
from generation.rollups.histogram import percentiles, step_of
from generation.rollups.upkeep import EVERY, LONGEST_REST
from tests.support.admin import LOGS, arrived, get, log_in, make_log
from tests.support.keys import make_key
from tests.support.rollups import roll_up

DASHBOARD, ERRORS, SPENDING = (f"{LOGS}{name}/" for name in ("dashboard", "errors", "spending"))
PAGES: dict[str, dict[str, str]] = {DASHBOARD: {}, ERRORS: {}, SPENDING: {"user": "1"}}

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


@pytest.fixture
def busy(staff):
    """A client of the admin, and an hour with some failures after an hour with fewer requests."""
    make_key(name="a backend's", id=7)
    for minutes in (10, 20, 30):
        arrived(minutes, api_key_id=7)
    arrived(15, user_id=1, model="other", provider="openai", latency_ms=900)
    arrived(12, user_id=17, status="failed", error_type="llm-overloaded", attempts=attempts(529))
    arrived(11, user_id=1, status="failed", error_type="llm-overloaded", attempts=attempts(529))
    arrived(13, user_id=None, status="timed_out", error_type="llm-timed-out")
    arrived(75)
    roll_up()
    return staff


def attempts(*statuses: int) -> list[dict]:
    return [
        {"provider": "anthropic", "model": "claude", "status": status, "error": "x", "ms": 40}
        for status in statuses
    ]


def test_the_dashboard_shows_a_period_and_how_it_changed_in_three_statements(busy):
    with CaptureQueriesContext(connection) as queries:
        page = get(busy, DASHBOARD, period="1h")
    tiles = {tile.title: tile for tile in page.context["tiles"]}
    assert tiles["Requests"].value == "7"
    assert tiles["Requests"].change == "+600 %"
    assert tiles["Not succeeded"].value == "42.86 %"
    assert tiles["Cost"].value == "$1.75"
    models, users, keys = page.context["tables"]
    assert [(row.name, row.requests, row.p95) for row in models["rows"]] == [
        ("claude-sonnet-5-5", "6", "5.09 s"),
        ("other", "1", "0.90 s"),
    ]
    assert {row.name for row in users["rows"]} == {"user1", "17", "nobody"}
    assert {row.name for row in keys["rows"]} == {"a backend's", "no key"}
    assert f"{LOGS}?user=1&amp;created_at_from_0=" in page.html
    ours = [query["sql"] for query in queries if "generation_" in query["sql"]]
    assert len(ours) == 3
    assert not [sql for sql in ours if "generation_generationlog" in sql], "rollups alone"


def test_a_cost_is_a_sum_that_says_what_it_lacks_or_a_dash_where_nothing_is_known(staff):
    make_key(name="mixed", id=7)
    arrived(10, user_id=1, api_key_id=7)
    arrived(10, user_id=1, api_key_id=7, model="new", cost_usd=None)
    arrived(10, user_id=1, status="failed", cost_usd=None, input_tokens=None, output_tokens=None)
    arrived(10, user_id=17, model="new", cost_usd=None)
    arrived(10, user_id=18, model="free", cost_usd=0)
    roll_up()
    page = get(staff, DASHBOARD, period="1h")
    tables = [
        {row.name: (row.cost, row.pricing) for row in table["rows"]}
        for table in page.context["tables"]
    ]
    models, users, keys = tables
    assert models["new"] == ("–", "0 of 2 priced")
    assert users["17"] == ("–", "0 of 1 priced")
    assert models["free"] == users["18"] == ("$0", "")
    assert users["user1"] == keys["mixed"] == ("$0.2500", "1 of 2 priced")
    assert models["claude-sonnet-5-5"] == ("$0.2500", ""), "a failure without tokens costs nothing"
    tile = page.context["tiles"][-1]
    assert (tile.value, tile.aside) == ("$0.2500", "2 of 4 priced")
    assert "1 of 2 priced" in page.html


def test_the_figures_of_each_period_are_those_of_the_log(busy):
    for minutes in (60 * 5, 60 * 20, 60 * 24 * 6, 60 * 24 * 29, 60 * 24 * 80):
        arrived(minutes, latency_ms=minutes)
    roll_up()
    for period in PERIODS:
        with sums.reading() as (cursor, progress):
            figures = sums.read(cursor, period, progress)
            ranking = spenders.rank(cursor, figures.window, figures.until)
        for found, span in (
            (figures.total.now.requests, figures.window.span),
            (figures.total.whole.requests, figures.window.whole),
            (figures.total.before.requests, figures.window.before),
            (sum(each.requests for each in ranking.users), ranking.window.span),
            (sum(each.requests for each in ranking.keys), ranking.window.span),
        ):
            rows = GenerationLog.objects.filter(
                created_at__gte=span.since, created_at__lt=span.until
            )
            assert found == rows.count(), (period.name, span)
        series = figures.requests_by_status.values()
        assert sum(sum(points.values()) for points in series) == figures.total.now.requests
        require_spent(ranking)
        require_latencies(figures)


def require_latencies(figures: sums.Figures) -> None:
    """Those of the whole period, of the one before, of each point, and of each model."""
    step = figures.period.step * MINUTE
    succeeded = GenerationLog.objects.filter(status="succeeded")
    expected = [
        (figures.latency_by_point.get(number), succeeded, Span(start, start + step))
        for number in range(figures.points)
        for start in [figures.window.span.since + number * step]
    ]
    compared = {sums.ALL_TOGETHER: figures.total, **figures.models}
    for (provider, model), each in compared.items():
        logs = succeeded.filter(provider=provider, model=model) if provider else succeeded
        expected += [
            (each.latency, logs, figures.window.span),
            (each.latency_before, logs, figures.window.before),
        ]
    for found, logs, span in expected:
        times = logs.filter(created_at__gte=span.since, created_at__lt=span.until)
        steps = Counter(map(step_of, times.values_list("latency_ms", flat=True)))
        assert found == (tuple(percentiles(steps, sums.SHARES)) if steps else None), (
            figures.period.name,
            span,
        )


def require_spent(ranking: spenders.Ranking) -> None:
    """All who spent anything are listed, so their sums are those of the log."""
    now, whole, before = (
        GenerationLog.objects.filter(created_at__gte=span.since, created_at__lt=span.until)
        for span in (ranking.window.span, ranking.window.whole, ranking.window.before)
    )
    for found in (ranking.users, ranking.keys):
        assert sum(each.failed for each in found) == now.exclude(status="succeeded").count()
        assert sum(each.tokens for each in found) == 30 * now.count()
        assert sum(each.cost for each in found) == Decimal("0.25") * now.count()
        assert sum(each.cost_whole for each in found) == Decimal("0.25") * whole.count()
        assert sum(each.cost_before for each in found) == Decimal("0.25") * before.count()


def test_the_errors_are_counted_by_kind_with_who_was_hit_and_when(busy):
    with CaptureQueriesContext(connection) as queries:
        page = get(busy, ERRORS, period="1h")
    ours = [query["sql"] for query in queries if "generation_" in query["sql"]]
    assert len(ours) == 2  # before the next request, with which Django forgets them
    kinds = page.context["kinds"]
    assert [(each.error, each.http_status, each.requests, each.users) for each in kinds] == [
        ("llm-overloaded", "529", "2", "2"),
        ("llm-timed-out", "–", "1", "0"),
    ]
    failed = GenerationLog.objects.filter(error_type="llm-overloaded").order_by("created_at")
    assert [kinds[0].first_at, kinds[0].last_at] == [log.created_at for log in failed]
    for kind in kinds:  # its link leads to what was counted
        found = get(busy, kind.url).context["cl"].result_list
        assert str(len(found)) == kind.requests
        assert {log.error_type for log in found} == {kind.error}
    assert kinds[0].spark


def test_pages_say_up_to_when_their_figures_go_and_if_that_is_long_ago(busy):
    rollups = Maintenance.objects.filter(task="rollups")
    rollups.update(watermark=datetime.now(UTC) - LONGEST_REST - EVERY)
    assert not get(busy, DASHBOARD).context["is_late"], "upkeep only rests after a long pass"
    rollups.update(watermark=datetime.now(UTC) - LATE_AFTER)
    for page, query in PAGES.items():
        assert "no process has summed them up since" in get(busy, page, **query).html


def test_pages_say_what_to_do_where_there_is_nothing_to_show(staff):
    for page, query in PAGES.items():
        assert "manage.py staccato_maintain" in get(staff, page, **query).html
    assert get(staff, "/admin/").context["figures"] == {}
    roll_up()
    assert "No request arrived in this time" in get(staff, DASHBOARD).html
    assert "Nothing failed in this time" in get(staff, ERRORS).html
    assert "Choose a longer one" in get(staff, SPENDING, user="1").html


def test_the_index_shows_the_last_day_in_short(busy):
    page = get(busy, "/admin/")
    assert page.context["figures"]["tiles"][0].value == "8"
    assert DASHBOARD in page.html


def test_only_who_may_view_logs_sees_their_figures(user):
    clerk = User.objects.create(username="clerk", is_staff=True)
    client = log_in(clerk)
    for page, query in PAGES.items():
        assert client.get(page, query).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_generationlog"))
    for page, query in PAGES.items():
        assert client.get(page, query).status_code == 200
        assert client.get(page, {**query, "period": "<script>"}).status_code == 200


def test_a_window_compares_what_is_over_with_as_long_a_time_before():
    watermark = datetime(2026, 1, 31, 14, 37, 20, tzinfo=UTC)
    found = window(named("1h"), watermark)
    assert found.span == Span(
        watermark.replace(minute=40, second=0) - HOUR, watermark.replace(minute=40, second=0)
    )
    assert found.whole.until == floor(watermark, 5)
    assert found.before == Span(found.span.since - 55 * MINUTE, found.span.since)
    hours = hours_of(found, watermark)
    assert hours.span == Span(
        watermark.replace(hour=13, minute=0, second=0),
        watermark.replace(hour=15, minute=0, second=0),
    )
    assert hours.before.until == hours.span.since == hours.before.since + HOUR


def test_the_longest_buckets_make_up_a_span_without_gap_or_overlap():
    for hours in (1, 5, 26, 24 * 8, 24 * 90):
        until = datetime(2026, 1, 31, 14, 0, tzinfo=UTC)
        span = Span(until - hours * HOUR, until)
        runs = sorted(longest_buckets(span, SPENDER_LENGTHS), key=lambda run: run[1].since)
        assert runs[0][1].since == span.since
        assert runs[-1][1].until == span.until
        for (minutes, run), (_, following) in zip(
            runs, [*runs[1:], (0, Span(until, until))], strict=True
        ):
            assert run.until == following.since
            assert floor(run.since, minutes) == run.since < run.until == floor(run.until, minutes)


def test_a_change_is_in_per_cent_of_before():
    assert [change(*pair) for pair in ((3, 2), (1, 2), (1000, 1001), (1, 0))] == [
        "+50 %",
        "−50 %",
        "±0 %",
        "",
    ]


def test_attempts_are_drawn_when_they_ran(user):
    log = make_log(latency_ms=1100, llm_latency_ms=1000)
    first, second = (
        {"ms": 200, "error": "llm-overloaded", "at_ms": 0},
        {"ms": 400, "at_ms": 600},
    )
    for made, starts in (
        ([first, second], [0, 100, 700]),
        ([{"ms": 200}, {"ms": 400}], [0, 100, 300]),  # of rows of before
    ):
        log.attempts = made
        fall = drawn(log)
        assert [bar.step.started_ms for bar in fall.bars] == starts
        assert all(float(bar.x) + float(bar.width) <= 100.01 for bar in fall.bars)
    log.attempts = ["odd", {"ms": "odd"}]
    assert len(drawn(log).bars) == 2
    log.attempts = []
    assert drawn(log) is None
