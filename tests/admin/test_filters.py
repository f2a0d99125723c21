"""Filters and search: what they find, and through which index."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from generation import conf
from generation.models import GenerationLog
from tests.support.admin import LOGS, NOON, find, get, make_id, save_log, save_logs

User = get_user_model()
Status = GenerationLog.Status


pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("status", "timed_out", "succeeded"),
        ("provider", "openai", "anthropic"),
        ("model", "gpt-6-luna", "claude-sonnet-5-5"),
    ],
)
def test_a_filter_finds_what_it_names(name, value, other):
    wanted = save_log(**{name: value})
    save_log(minutes_ago=1, **{name: other})
    assert find(**{name: value}) == [wanted.pk]


def in_range(**parts: str) -> list:
    return find(**{f"created_at_{part}": text for part, text in parts.items()})


@pytest.mark.parametrize(
    ("parts", "ages"),
    [
        ({"from_0": "2026-01-31"}, [0, 60, 720]),
        ({"from_0": "2026-01-31", "from_1": "11:00"}, [0, 60]),
        ({"from_0": "2026-01-31", "from_1": "11:00:01"}, [0]),
        ({"to_0": "2026-01-30"}, [721, 1441]),
        ({"to_0": "2026-01-31", "to_1": "12:00"}, [60, 720, 721, 1441]),
        ({"from_0": "2026-01-30", "to_0": "2026-01-30"}, [721, 1441]),
        ({"from_1": "11:00"}, [0, 60, 720, 721, 1441]),
        ({"to_0": "0001-01-01"}, []),
    ],
)
def test_a_range_is_from_a_moment_to_before_another(parts, ages):
    logs = {age: save_log(minutes_ago=age) for age in (0, 60, 720, 721, 1441)}
    assert in_range(**parts) == [logs[age].pk for age in ages]


def test_a_range_holds_requests_whose_body_took_as_long_as_it_may():
    """A row's id is made when the request's body is there."""
    arrived = NOON - timedelta(hours=1)
    read = arrived + timedelta(seconds=conf.load().body_timeout)
    slow = save_log(minutes_ago=60, id=make_id(read))
    assert in_range(to_0="2026-01-31", to_1="11:01") == [slow.pk]


def test_a_range_is_searched_through_the_key():
    with CaptureQueriesContext(connection) as queries:
        in_range(from_0="2026-01-30", to_0="2026-01-30")
    page = next(query["sql"] for query in queries if "created_at" in query["sql"])
    assert '"generation_generationlog"."id" >=' in page
    assert '"generation_generationlog"."id" <' in page


@pytest.mark.parametrize("side", ["from", "to"])
@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "\0"])
def test_an_invalid_date_is_reported(staff, side, day):
    assert "was ignored" in get(staff, LOGS, **{f"created_at_{side}_0": day}).html


@pytest.mark.parametrize(
    "parts", [{"from_0": "0001-01-01"}, {"from_0": "9999-12-31"}, {"to_0": "9999-12-31"}]
)
def test_a_date_at_the_end_of_time_is_reported(staff, parts):
    query = {f"created_at_{part}": text for part, text in parts.items()}
    assert "was ignored" in get(staff, LOGS, **query).html


def test_search_finds_a_log_by_its_id():
    wanted, _ = save_logs(2)
    assert find(q=str(wanted.pk)) == [wanted.pk]
    assert find(q=f" {wanted.pk.hex.upper()} ") == [wanted.pk]


@pytest.mark.parametrize(
    "request_id", ["checkout-17", "1", "user1", "a b", "00000000-0000-4000-8000-000000000001"]
)
def test_search_finds_logs_by_request_id(user, request_id):
    save_log(minutes_ago=1)
    wanted = save_log(request_id=request_id)
    assert find(q=request_id) == [wanted.pk]


@pytest.mark.parametrize("term", ["17", "0017", "eve"])
def test_search_finds_logs_by_user(term):
    User.objects.create(pk=17, username="eve")
    save_log(minutes_ago=1)
    wanted = save_log(user_id=17)
    assert find(q=term) == [wanted.pk]


def test_search_finds_logs_of_a_deleted_user_by_id():
    wanted = save_log(user_id=999)
    assert find(q="999") == [wanted.pk]


@pytest.mark.parametrize("term", ["nobody", "9" * 30, "²", "-1", "%", "prompt", "user", "1.5"])
def test_search_finds_nothing_rather_than_something_like_it(user, term):
    save_log()
    assert find(q=term) == []


@pytest.mark.parametrize("term", ["17", "nobody", "00000000-0000-4000-8000-000000000001"])
def test_search_looks_for_whole_values_only(term):
    with CaptureQueriesContext(connection) as queries:
        find(q=term)
    assert queries.captured_queries
    assert not [query["sql"] for query in queries if "LIKE" in query["sql"]]
