"""API keys in the admin: made, shown once, and revoked."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client

from generation import conf
from generation.api_keys import tokens
from generation.models import ApiKey
from tests.support.admin import KEYS, get
from tests.support.keys import make_key, rows_of

User = get_user_model()
NO_LIMITS = {"weight": "1", "limits-TOTAL_FORMS": "0", "limits-INITIAL_FORMS": "0"}

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def test_a_key_made_in_the_admin_is_shown_once_and_in_no_cookie(staff):
    values = {"name": "the shop", "scope": "all", "allowed_models": ""}
    response = staff.post(f"{KEYS}add/", values)
    assert response.status_code == 200
    (key,) = set(re.findall(r"stc_[0-9a-f]{12}_[\w-]{43}", response.content.decode()))
    row = rows_of(key).get()
    assert tokens.matches(key, conf.load().pepper, row.digest)
    assert "no-store" in response.headers["cache-control"]
    assert key not in str(response.cookies)
    for page in (KEYS, f"{KEYS}{row.pk}/change/", f"{KEYS}{row.pk}/history/", "/admin/"):
        text = html.unescape(get(staff, page).html)
        assert key not in text
        assert row.digest not in text


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"scope": "user", "user": ""}, "Name a user here"),
        ({"scope": "all", "user": "1"}, "Name a user here"),
        ({"scope": "all", "users": "1"}, "scope"),
        ({"scope": "users", "users": ""}, "Name users here"),
        ({"scope": "all", "expires_at_0": "2020-01-31", "expires_at_1": "12:00"}, "has passed"),
        ({"scope": "all", "allowed_models": "oracle:9i"}, "oracle"),
    ],
)
def test_the_form_says_what_does_not_fit(staff, values, fault):
    values = {"name": "x", "allowed_models": "", **values}
    response = staff.post(f"{KEYS}add/", values)
    assert fault in html.unescape(response.content.decode())
    assert not ApiKey.objects.exists()


def test_the_form_of_a_key_is_complete_with_a_name(staff):
    page = get(staff, f"{KEYS}add/").html
    assert re.search(r'<option value="all" selected', page)
    assert page.count("admin-autocomplete") >= 2, "users are searched for"


def test_without_a_page_for_users_they_are_entered_by_id(staff, monkeypatch):
    monkeypatch.delitem(admin.site._registry, User)
    page = get(staff, f"{KEYS}add/").html
    for name in ("user", "users"):
        (field,) = re.findall(f'<input[^>]*name="{name}"[^>]*>', page)
        assert "border-base-200" in field, "it can be seen"


def test_the_page_of_a_key_names_its_users(staff):
    for name in ("ada", "bob", "cy", "dee"):
        User.objects.create(username=name)
    row = rows_of(make_key(scope="users")).get()
    row.users.set(User.objects.exclude(username="root"))
    assert "ada, bob, cy, dee" in get(staff, f"{KEYS}{row.pk}/change/").html


def test_a_key_is_revoked_on_its_page_after_a_question(staff):
    row = rows_of(make_key()).get()
    page, revoke = f"{KEYS}{row.pk}/change/", f"{KEYS}{row.pk}/revoke/"
    assert revoke in get(staff, page).html
    assert "be undone" in get(staff, revoke).html
    row.refresh_from_db()
    assert row.revoked_at is None, "a look changes nothing"
    assert staff.post(revoke).headers["location"] == page
    row.refresh_from_db()
    revoked_at = row.revoked_at
    assert revoked_at
    assert revoke not in get(staff, page).html
    staff.post(revoke)
    row.refresh_from_db()
    assert row.revoked_at == revoked_at
    assert staff.get(f"{KEYS}999/revoke/").status_code == 404
    assert staff.get(f"{KEYS}x/revoke/").status_code == 404


def test_revoking_needs_the_permission_and_the_form_s_token(reviewer):
    row = rows_of(make_key()).get()
    revoke = f"{KEYS}{row.pk}/revoke/"
    assert reviewer.get(revoke).status_code == reviewer.post(revoke).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("boss2"))
    assert strict.post(revoke).status_code == 403
    row.refresh_from_db()
    assert row.revoked_at is None


def test_a_new_key_comes_with_a_call_that_works(staff):
    User.objects.create(id=8, username="ada")
    values = {"name": "ada's", "scope": "user", "user": "8", "allowed_models": ""}
    response = staff.post(f"{KEYS}add/", values)
    text = html.unescape(response.content.decode())
    (key,) = set(re.findall(r"stc_[0-9a-f]{12}_[\w-]{43}", text))
    assert (
        f"curl -X POST http://testserver/api/v1/generate/8 -H 'Authorization: Bearer {key}'" in text
    )


def test_a_key_can_be_revoked_and_not_turned_into_another(staff):
    row = rows_of(make_key()).get()
    staff.post(
        f"{KEYS}{row.pk}/change/", {"name": "new", "scope": "user", "user": "1", **NO_LIMITS}
    )
    row.refresh_from_db()
    assert row.scope == "all"
    assert row.name == "new"
    staff.post(KEYS, {"action": "revoke", "_selected_action": [row.pk], "index": 0})
    row.refresh_from_db()
    assert row.revoked_at
    assert "revoked" in get(staff, KEYS).html


def test_the_list_of_keys_asks_no_more_for_more_keys(staff, django_assert_max_num_queries):
    for _ in range(12):
        make_key()
    with django_assert_max_num_queries(8):
        get(staff, KEYS)
