"""Limits in the admin: set beside their key, shown as bars, overridden for a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User

from generation import standing
from generation.models import Limit, LimitLease, LimitWindow
from tests.support.admin import KEYS, get
from tests.support.keys import make_key, rows_of

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]
LIMITS = "/admin/generation/limit/"


@pytest.fixture
def key(user):
    return rows_of(make_key()).get()


def form(key, **values):
    return {
        "name": key.name,
        "weight": "1",
        "limits-TOTAL_FORMS": "1",
        "limits-INITIAL_FORMS": "0",
        **{f"limits-0-{name}": value for name, value in values.items()},
    }


def test_a_limit_is_set_on_the_page_of_its_key(staff, key):
    page = f"{KEYS}{key.pk}/change/"
    values = {"unit": "usd", "amount": "20.50", "window": "month", "is_enforced": "on"}
    answer = staff.post(page, form(key, **values))
    assert answer.status_code == 302, answer.content.decode()
    limit = Limit.objects.get()
    assert (limit.scope, limit.api_key, limit.amount) == ("key", key, 20_500_000_000)
    assert "$0.00 | $0.00 | $20.50" in get(staff, page).html


@pytest.mark.parametrize(
    "values",
    [
        {"unit": "usd", "amount": "-1", "window": "month"},
        {"unit": "usd", "amount": "1", "window": "minute"},
        {"unit": "requests", "amount": "1.5", "window": "day"},
        {"unit": "requests", "amount": "1", "window": "day", "zone": "Mars/Olympus"},
    ],
)
def test_the_form_refuses_what_is_no_limit(staff, key, values):
    answer = staff.post(f"{KEYS}{key.pk}/change/", form(key, **values))
    assert answer.status_code == 200
    assert not Limit.objects.exists()


def test_the_bar_shows_what_is_used_reserved_and_left_and_an_override_adds_to_it(staff, key):
    limit = Limit.objects.create(
        scope="key", api_key=key, unit="requests", amount=100, window="ever"
    )
    start = standing.standings([limit])[0].window.start
    window = LimitWindow.objects.create(
        limit=limit, subject="", start=start, committed=30, as_of=start
    )
    LimitLease.objects.create(run="0" * 32, window=window, granted=30, settled=20)
    assert "20 | 10 | 70" in get(staff, LIMITS).html
    override = f"{LIMITS}{limit.pk}/override/"
    assert override in get(staff, LIMITS).html
    assert "is not a whole number" in staff.post(override, {"amount": "x"}).content.decode()
    assert staff.post(override, {"amount": "50"}).status_code == 302
    assert "20 | 10 | 120" in get(staff, LIMITS).html
    for page in (f"{LIMITS}add/", f"{LIMITS}{limit.pk}/change/", override):
        assert get(staff, page).html


def test_a_limit_that_each_has_shows_who_is_nearest_and_its_page_shows_all(staff, user):
    other = User.objects.create(username="other")
    limit = Limit.objects.create(scope="user", unit="requests", amount=100, window="ever")
    assert "nobody has used any" in get(staff, LIMITS).html
    start = standing.standings([limit])[0].window.start
    for subject, used in ((str(user.pk), 10), (str(other.pk), 90), ("1000", 5)):
        window = LimitWindow.objects.create(
            limit=limit, subject=subject, start=start, committed=used, as_of=start
        )
        LimitLease.objects.create(run=f"{used:032}", window=window, granted=used, settled=used)
    listed = get(staff, LIMITS).html
    assert "90 | 0 | 10" in listed
    assert f"{other.username}, the nearest" in listed
    assert "10 | 0 | 90" not in listed
    shown = get(staff, f"{LIMITS}{limit.pk}/change/").html
    for figures, name in (
        ("90 | 0 | 10", other.username),
        ("10 | 0 | 90", user.username),
        ("5 | 0 | 95", "1000"),  # a user who is deleted
    ):
        assert f'{figures} <span class="log-aside">{name}</span>' in shown


def test_nearest_to_a_rate_is_who_has_taken_most_that_has_not_refilled(staff, user):
    limit = Limit.objects.create(scope="user", unit="requests", amount=1000, window="hour")
    start, now = standing.standings([limit])[0].window.start, datetime.now(UTC)
    for subject, taken, as_of in (
        ("1000", 900, now - timedelta(hours=1)),
        (str(user.pk), 500, now),
    ):
        LimitWindow.objects.create(
            limit=limit, subject=subject, start=start, committed=taken, as_of=as_of
        )
    assert f"{user.username}, the nearest" in get(staff, LIMITS).html


def test_a_users_limits_are_on_its_page(staff, user):
    Limit.objects.create(scope="user", user=user, unit="tokens", amount=7, window="day")
    assert "0 | 0 | 7" in get(staff, f"/admin/auth/user/{user.pk}/change/").html


def test_who_may_not_change_limits_gives_none_more(reviewer, key):
    limit = Limit.objects.create(scope="all", unit="requests", amount=1, window="day")
    answer = reviewer.post(f"{LIMITS}{limit.pk}/override/", {"amount": "50"})
    assert answer.status_code in {403, 404}
    limit.refresh_from_db()
    assert limit.extra == 0
