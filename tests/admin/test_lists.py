"""A list of a large table: what it shows, and what it costs."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from generation.models import GenerationLog, Profile
from tests.support.admin import (
    LOGS,
    follow,
    get,
    keys,
    make_log,
    row_html,
    save_log,
    save_logs,
    shown,
)

User = get_user_model()
Status = GenerationLog.Status


pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def test_a_page_of_50_rows_costs_no_query_per_row_and_counts_nothing(staff):
    save_logs(5)
    with CaptureQueriesContext(connection) as few:
        get(staff, LOGS)
    others = User.objects.bulk_create(User(username=f"other{n}") for n in range(50))
    GenerationLog.objects.bulk_create(
        make_log(-n, user_id=n if n % 2 else others[n // 2].pk) for n in range(1, 50)
    )
    with CaptureQueriesContext(connection) as many:
        response = get(staff, LOGS)
    assert len(shown(response)) == 50
    assert len(many) == len(few)
    assert not [query["sql"] for query in many if "COUNT(" in query["sql"].upper()]
    assert not [query["sql"] for query in many if "OFFSET" in query["sql"].upper()]


def test_the_long_texts_of_a_list_stay_in_the_database(staff):
    save_log(prompt="p" * 10_000, result="r" * 10_000)
    with CaptureQueriesContext(connection) as queries:
        response = get(staff, LOGS)
    assert "pppp" in response.html
    assert "p" * 1000 not in response.html
    texts = [query["sql"] for query in queries if "generation_generationbody" in query["sql"]]
    assert len(texts) == 1, "the excerpts of a page are read at once"
    assert texts[0].count('"prompt"') == texts[0].count('."prompt", 240)') == 1, "its start only"
    assert '"result"' not in texts[0]


def test_a_log_whose_texts_were_dropped_is_still_shown(staff):
    log = save_log(prompt="no longer here")
    log.body.delete()
    assert shown(get(staff, LOGS)) == [log.pk]
    page = get(staff, f"{LOGS}{log.pk}/change/").html
    assert "no longer kept" in page
    assert "no longer here" not in page


@pytest.mark.parametrize(
    ("template", "prompt", "excerpt"),
    [
        ("Sum this up: $input", "Sum this up: the minutes", "… the minutes"),
        ("Be brief.", "Be brief.\n\nthe minutes", "… the minutes"),
        ("Be brief.", "Be brief.", "Be brief."),
        ("It was another then: $input", "Be brief.", "Be brief."),
        ("$input", " the minutes ", "the minutes"),
        ("x" * 2000, "x" * 2000, "x" * 120 + "…"),
    ],
)
def test_the_list_shows_of_a_prompt_what_its_template_lacks(staff, user, template, prompt, excerpt):
    """All rows of a user would look the same: an excerpt is shorter than a template's start."""
    Profile.objects.create(user=user, prompt_template=template)
    log = save_log(prompt=prompt)
    assert f">{excerpt}<" in row_html(get(staff, LOGS), log)


def test_older_and_newer_lead_through_every_row_once(staff, short_pages):
    logs = save_logs(25)
    pages = [get(staff, LOGS)]
    pages += [follow(staff, pages[-1], "next")]
    pages += [follow(staff, pages[-1], "next")]
    assert [key for page in pages for key in shown(page)] == keys(logs)
    assert 'rel="prev"' not in pages[0].html
    assert 'rel="next"' not in pages[2].html
    assert shown(follow(staff, pages[2], "prev")) == shown(pages[1])
    assert shown(follow(staff, pages[1], "prev")) == shown(pages[0])


def test_rows_that_arrive_shift_no_page(staff, short_pages):
    logs = save_logs(15)
    first = get(staff, LOGS)
    save_log(minutes_ago=-1)
    assert shown(follow(staff, first, "next")) == keys(logs[10:])


def test_newer_than_nearly_the_newest_is_a_full_first_page(staff, short_pages):
    logs = save_logs(15)
    assert shown(get(staff, LOGS, p=f"after:{logs[3].pk}")) == keys(logs[:10])


def test_pages_keep_the_filters(staff, short_pages):
    save_logs(15)
    failed = save_logs(15, status=Status.FAILED)
    first = get(staff, LOGS, status="failed")
    assert shown(follow(staff, first, "next")) == keys(failed[10:])


def test_a_filter_starts_at_the_newest_row(staff, short_pages):
    save_logs(15)
    second = follow(staff, get(staff, LOGS), "next")
    assert 'name="p"' not in second.html


def test_the_order_is_that_of_the_key_whatever_is_asked(staff):
    logs = save_logs(3)
    assert shown(get(staff, LOGS, o="-2.4")) == keys(logs)


@pytest.mark.parametrize(
    "query",
    [{"p": "before:zzz"}, {"p": "after:"}, {"body__prompt": "x"}, {"created_at__gte": "2026"}],
)
def test_a_wrong_address_is_refused_kindly(staff, query):
    save_logs(1)
    response = staff.get(LOGS, query)
    assert (response.status_code, response["location"]) == (302, f"{LOGS}?e=1")


@pytest.mark.parametrize("p", ["3", "", "sideways:1"])
def test_a_page_without_a_place_is_the_first(staff, p):
    logs = save_logs(3)
    assert shown(get(staff, LOGS, p=p)) == keys(logs)
