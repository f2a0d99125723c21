"""The list of logs: its filters as a person meets them, and the way from one log to the next."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.auth import get_user_model

from generation.admin import logs as pages
from generation.log_search import guide, walk
from generation.log_search.places import SearchPlaces
from generation.models import ApiKey, GenerationAccess, GenerationLog
from generation.partitions.intervals import moment_of
from tests.support.admin import LOGS, follow, get, keys, save_log, save_logs, shown
from tests.support.rollups import catch_up

User = get_user_model()
DAY = {"created_at_from_0": "2026-01-31", "created_at_to_0": "2026-01-31"}

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def searched(response) -> str:
    """What stands under the list."""
    words = re.search(r'<span role="status">(.*?)</span>', response.html).group(1)
    return unescape(re.sub("</?time>", "", words))


def test_users_and_keys_are_found_by_their_names(staff):
    User.objects.create(pk=17, username="eve")
    key = ApiKey.objects.create(name="shop", prefix="stc_abc", digest="d", scope="all")
    wanted = save_log(user_id=17, api_key_id=key.pk)
    other = save_log(1, user_id=18, api_key_id=99)
    names = {"user": ["eve", "17"], "api_key": ["shop", "stc_abc", str(key.pk)]}
    for name, values in names.items():
        for value in values:
            assert shown(get(staff, LOGS, **{name: value})) == [wanted.pk]
    assert shown(get(staff, LOGS, api_key="99")) == [other.pk], "its key was deleted"
    assert shown(get(staff, LOGS, api_key="no such key")) == []


def test_what_is_set_is_shown_and_can_be_taken_away_one_by_one(staff):
    query = {"status": "failed", "model": "m<b>", "cost_min": "0.5", "retried": "1", **DAY}
    response = get(staff, LOGS, **query)
    chips = dict(
        reversed(pair)
        for pair in re.findall(
            r'<li><a href="([^"]+)" title="Remove[^>]*>(.+?) <span', response.html
        )
    )
    assert set(chips) == {
        *("status: failed", "model: m&lt;b&gt;", "cost ≥ $0.5", "retried"),
        *("from 2026-01-31 00:00", "to 2026-02-01 00:00"),
    }
    for words, url in chips.items():
        left = get(staff, f"{LOGS}{unescape(url)}").html
        assert f"{words} <span aria-hidden" not in left
        assert left.count('title="Remove this filter">') < response.html.count('title="Remove')


def test_a_value_that_cannot_be_meant_is_named(staff):
    save_logs(1)
    html = get(staff, LOGS, cost_min="much").html
    assert "The filter by cost was ignored" in unescape(html)
    assert 'value="much"' in html, "to be corrected"


def test_an_address_says_nothing_that_is_empty(staff):
    response = staff.get(LOGS, {"status": "failed", "q": "", "user": "", "retried": ""})
    assert (response.status_code, response["location"]) == (302, f"{LOGS}?status=failed")


def test_the_values_have_their_counts(staff, monkeypatch):
    monkeypatch.setattr(guide, "KEPT", timedelta(days=10_000))
    save_logs(3, model="gpt")
    save_log(5, model="claude", status="failed", error_type="llm-refused")
    async_to_sync(catch_up)()
    html = " ".join(get(staff, LOGS, **DAY).html.split())
    for text, count in (("gpt", 3), ("claude", 1), ("Failed", 1), ("llm-refused", 1)):
        assert f">{text} <span>{count}</span></a>" in html
    assert "4 on this page of 4" in html
    assert "of 1" in get(staff, LOGS, model="claude", **DAY).html
    assert "<span>3</span>" not in get(staff, LOGS, user="1", **DAY).html, "not of that user"


def test_a_search_that_ends_early_says_how_far_it_came(staff, monkeypatch):
    found = save_log(stop_reason="refusal")
    save_log(600, stop_reason="refusal")
    monkeypatch.setattr(walk, "BUDGET_S", 0)
    response = get(staff, LOGS, stop_reason="refusal")
    assert shown(response) == []
    assert "None found so far." in response.html
    assert re.fullmatch(r"Searched back to 2026-01-31 12:00:0\d", searched(response))
    monkeypatch.undo()
    further = re.search(r'href="([^"]+)" rel="next">Continue', response.html).group(1)
    assert shown(get(staff, f"{LOGS}{unescape(further)}"))[:1] == [found.pk]


def test_each_page_of_a_narrowed_list_says_how_far_the_log_is_searched(staff, short_pages):
    """So that somebody who finds little knows of which time, and whether that is all there is."""
    logs = save_logs(25, status="failed")
    first = get(staff, LOGS, status="failed")
    second = follow(staff, first, "next")
    third = follow(staff, second, "next")
    arrived = [f"{logs[n].created_at:%Y-%m-%d %H:%M:%S}" for n in (9, 10, 19)]
    assert searched(first) == f"Searched back to {arrived[0]} · 10 on this page"
    assert searched(second) == f"Searched back to {arrived[2]} · 10 on this page"
    assert searched(follow(staff, third, "prev")) == (
        f"Searched forward to {arrived[1]} · 10 on this page"
    )
    start = f"{moment_of(logs[-1].pk):%Y-%m-%d %H:%M:%S}"
    end = f"Searched back to {start}, the start of the log"
    assert searched(third) == f"{end} · 5 on this page"
    assert searched(get(staff, LOGS, status="cancelled")) == end
    assert searched(get(staff, LOGS, model="none")) == end
    assert searched(get(staff, LOGS)) == "10 on this page", "they are all the rows of that time"
    since = {"created_at_from_0": "2026-01-31", "created_at_from_1": "11:58"}
    assert searched(get(staff, LOGS, model="none", **since)) == (
        "Searched back to 2026-01-31 11:58:00, the start of the chosen time"
    )


def test_words_are_searched_back_to_the_oldest_text(reviewer):
    save_log(2, prompt="dodo").body.delete()
    kept = save_log(1, prompt="the canary sings")
    start = f"{moment_of(kept.pk):%Y-%m-%d %H:%M:%S}"
    assert searched(get(reviewer, LOGS, words="dodo")) == (
        f"Searched back to {start}, the start of the texts"
    )


def test_a_search_that_finds_no_place_is_asked_for_again_by_the_browser(staff, monkeypatch):
    save_log(stop_reason="refusal")
    taken = SearchPlaces(at_once=1)
    monkeypatch.setattr(walk, "places", taken)
    monkeypatch.setattr(walk, "QUICK_S", 0)
    with taken.taken():
        response = get(staff, LOGS, stop_reason="refusal")
    assert "Other searches are under way" in response.html
    assert response["Refresh"].startswith(f"{pages.AGAIN_AFTER_S}; url={LOGS}?p=before")
    assert "Refresh" not in get(staff, LOGS, stop_reason="refusal")


# --- from one log to the next ---------------------------------------------------------------------


def step(client, log, way: str, **query):
    """The page that the link on a log's page leads to."""
    html = get(client, f"{LOGS}{log.pk}/change/", **query).html
    rel = {"older": "next", "newer": "prev"}[way]
    url = unescape(re.search(rf'href="([^"]+)" rel="{rel}"', html).group(1))
    return client.get(url, follow=True)


def test_the_next_log_is_the_next_that_the_list_shows(staff):
    failed = save_logs(3, status="failed")
    save_logs(5, status="succeeded")
    kept = {"_changelist_filters": "status=failed&p=before%3Ax"}
    page = failed[0]
    for log in failed[1:]:
        response = step(staff, page, "older", **kept)
        assert response.context["original"].pk == log.pk
        page = log
    end = step(staff, page, "older", **kept)
    assert end.context["original"].pk == page.pk
    assert "oldest generation that the filter finds" in end.content.decode()
    assert step(staff, page, "newer", **kept).context["original"].pk == failed[1].pk


def test_the_list_gives_its_filter_to_each_log(staff):
    save_logs(2, model="gpt")
    html = get(staff, LOGS, model="gpt").html
    link = unescape(re.search(r'<th scope="row"[^>]*><a href="([^"]+)"', html).group(1))
    assert link.endswith("/change/?_changelist_filters=model%3Dgpt")


def test_a_step_that_takes_too_long_goes_on_in_the_list(staff, monkeypatch):
    log = save_log(stop_reason="refusal")
    monkeypatch.setattr(walk, "BUDGET_S", 0)
    kept = {"_changelist_filters": "stop_reason=end_turn"}
    response = step(staff, log, "older", **kept)
    assert response.request["PATH_INFO"] == LOGS
    assert "stop_reason=end_turn" in response.request["QUERY_STRING"]


# --- words in texts -------------------------------------------------------------------------------


def test_words_are_searched_by_those_who_may_read_and_that_is_recorded(reviewer, operator):
    wanted = save_log(prompt="the canary sings")
    save_log(1, prompt="nothing of it")
    assert shown(get(reviewer, LOGS, words="canary")) == [wanted.pk]
    assert shown(get(reviewer, LOGS, words="dodo")) == []
    entries = GenerationAccess.objects.order_by("id").values_list("action", "rows", "selection")
    assert list(entries) == [
        ("search", 0, "words=canary"),
        ("read", 1, "words=canary"),
        ("search", 0, "words=dodo"),
    ], "that nothing is found says something, too"
    response = get(operator, LOGS, words="canary")
    assert len(shown(response)) == 2, "what is in a text decides nothing"
    assert "may not read prompts and answers" in response.html
    assert 'name="words"' not in response.html


def test_a_step_among_words_is_recorded_as_a_search(reviewer):
    """Its address alone says whether a text has the word, whether or not the page is opened."""
    log = save_log(1, prompt="nothing of it")
    for word, way in (("canary", "older"), ("dodo", "newer")):
        reviewer.get(f"{LOGS}{log.pk}/{way}/?_changelist_filters=words%3D{word}")
    entries = GenerationAccess.objects.order_by("id").values_list("action", "rows", "selection")
    assert list(entries) == [("search", 0, "words=canary"), ("search", 0, "words=dodo")]


def test_search_in_texts_can_be_turned_off(reviewer, settings):
    settings.STACCATO = {**settings.STACCATO, "SEARCH": "off"}
    log = save_log(prompt="the canary sings")
    response = get(reviewer, LOGS, words="dodo")
    assert shown(response) == keys([log])
    assert "STACCATO_SEARCH is off" in response.html
    assert 'name="words"' not in response.html
    assert admin.site.get_model_admin(GenerationLog).list_per_page == 50
