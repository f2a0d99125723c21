"""Filters of the list that people have saved."""

from __future__ import annotations

import pytest

from generation.admin import saved_views
from generation.models import SavedView
from tests.support.admin import LOGS, get, log_in

VIEWS = f"{LOGS}views/"
FAILED = {"name": "Failed", "query": "status=failed&p=before%3Ax"}

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def save(client, **values) -> str:
    """Returns what the next page says."""
    response = client.post(f"{VIEWS}save/", {**FAILED, **values}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def names() -> list[str]:
    return list(SavedView.objects.order_by("pk").values_list("name", flat=True))


def test_a_view_is_a_name_and_an_address_and_its_owners_alone(reviewer, operator):
    assert "is saved" in save(operator, name=" Fa\0iled ")
    view = SavedView.objects.get()
    assert (view.name, view.query) == ("Failed", "status=failed"), "the filter without the position"
    html = get(operator, f"{LOGS}?status=failed").html
    assert 'href="?status=failed" aria-current="page"' in html
    assert "status: failed" in get(operator, VIEWS).html
    assert "view-chips" not in get(reviewer, LOGS).html
    assert "Failed</a>" not in get(reviewer, VIEWS).html
    assert reviewer.post(f"{VIEWS}{view.pk}/", {"name": "Mine"}).status_code == 404


def test_a_shared_view_is_everybodys_to_use_and_its_owners_to_change(reviewer, operator, staff):
    save(operator, is_shared="on")
    view = SavedView.objects.get()
    assert "Shared by operators" in get(reviewer, LOGS).html
    change = f"{VIEWS}{view.pk}/"
    assert reviewer.post(change, {"name": "Mine"}).status_code == 403
    assert reviewer.post(change, {"delete": "1"}).status_code == 403
    operator.post(change, {"name": "Broken ", "is_shared": "on"})
    assert names() == ["Broken"]
    staff.post(change, {"delete": "1"})
    assert names() == []


def test_what_cannot_be_saved_says_why(operator, monkeypatch, subtests):
    save(operator)
    for words, values in {
        "already": {},
        "not one of the list": {"name": "b", "query": "body__prompt=x"},
        "no filter": {"name": "b", "query": "p=before:x"},
        "blank": {"name": " "},
        "60 characters": {"name": "b" * 61},
    }.items():
        with subtests.test(words):
            assert words in save(operator, **values)
    monkeypatch.setattr(saved_views, "MOST", 1)
    assert "You have 1 views" in save(operator, name="b")
    assert names() == ["Failed"]


def test_who_may_not_see_the_list_has_no_views(committed, django_user_model):
    clerk = log_in(django_user_model.objects.create_user("clerk", is_staff=True))
    assert clerk.get(VIEWS).status_code == 403
    assert clerk.post(f"{VIEWS}save/", FAILED).status_code == 403
    assert names() == []
