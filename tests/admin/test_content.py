"""Texts are shown to those who may read them, and each reading is recorded before."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from generation import access, conf
from generation.models import GenerationAccess
from generation.partitions import ddl
from generation.partitions.intervals import WEEK, interval_at
from generation.partitions.maintenance import kept_tables
from generation.privacy.encryption import TEXTS
from tests.support.admin import ACCESSES, LOGS, get, log_in, make_id, save_log, save_logs, shown

CANARY = "canary-7d1f"
BODY = "generation_generationbody"
User = get_user_model()

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


@pytest.fixture
def log(committed):
    """With a canary in each of its texts."""
    texts: dict[str, Any] = dict.fromkeys(TEXTS, CANARY)
    return save_log(status="failed", error_type="llm-unreachable", **texts)


@pytest.fixture
def unwritable(committed):
    """The record takes no row."""
    table = GenerationAccess._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT none CHECK (rows < 0) NOT VALID")
        yield
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT none")


def recorded() -> list[tuple]:
    entries = GenerationAccess.objects.order_by("id")
    return list(entries.values_list("user__username", "action", "log_id", "rows"))


# --- who may read ---------------------------------------------------------------------------------


def test_an_operator_sees_figures_and_no_query_touches_a_text(operator, log):
    page = f"{LOGS}{log.pk}/change/"
    with CaptureQueriesContext(connection) as queries:
        pages = [get(operator, url).html for url in ("/admin/", LOGS, page)]
        pages += [get(operator, LOGS, q=term).html for term in (CANARY, "1", str(log.pk))]
        get(operator, LOGS, status="failed")
    assert not [query["sql"] for query in queries if BODY in query["sql"]]
    asked = re.compile(rf'value="{CANARY}"|\bq={CANARY}|search: {CANARY}')
    assert not any(CANARY in asked.sub("", html) for html in pages)
    assert log.model in pages[1]
    assert "llm-unreachable" in pages[2], "the kind of error is no text"
    assert "not read its texts" in pages[2], "the page says why something is missing"
    assert recorded() == [], "what shows no text is no access"


def test_a_reviewer_reads_the_texts(reviewer, log):
    assert CANARY in get(reviewer, LOGS).html
    html = get(reviewer, f"{LOGS}{log.pk}/change/").html
    assert html.count(CANARY) >= 5
    assert "not read its texts" not in html


def test_an_operator_finds_nothing_that_would_reveal_a_text(operator, log):
    for term in (CANARY, "prompt", "%"):
        assert shown(get(operator, LOGS, q=term)) == []
    for name in ("body__prompt", "body__prompt__startswith", "body__error__contains"):
        response = operator.get(LOGS, {name: CANARY})
        assert response.status_code in {302, 400}, "no such filter"


# --- the record -----------------------------------------------------------------------------------


def test_each_reading_is_recorded_with_who_and_from_where(reviewer, log):
    save_logs(2)
    get(reviewer, LOGS, status="failed")
    get(reviewer, LOGS, q="1")
    get(reviewer, f"{LOGS}{log.pk}/change/")
    assert recorded() == [
        ("reviewers", "read", None, 1),
        ("reviewers", "search", None, 3),
        ("reviewers", "read", log.pk, 1),
    ]
    assert GenerationAccess.objects.filter(address="127.0.0.1").count() == 3
    assert GenerationAccess.objects.filter(selection="status=failed").count() == 1


def test_requests_that_are_transactions_are_none_here(staff, log, monkeypatch):
    """What is rolled back with a request would have been read before."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    get(staff, LOGS)
    get(staff, f"{LOGS}{log.pk}/change/")
    assert len(recorded()) == 2


def test_an_empty_list_is_no_access(reviewer):
    get(reviewer, LOGS)
    assert recorded() == []


def test_where_the_record_cannot_be_written_no_text_is_read(staff, log, unwritable):
    for url in (LOGS, f"{LOGS}?q=1", f"{LOGS}{log.pk}/change/", f"{LOGS}export/"):
        with CaptureQueriesContext(connection) as queries:
            response = staff.get(url)
        assert response.status_code == 503
        assert int(response["Retry-After"]) > 0
        assert CANARY not in response.content.decode()
        assert not [query["sql"] for query in queries if BODY in query["sql"]]


def test_figures_do_not_need_the_record(operator, log, unwritable):
    assert shown(get(operator, LOGS)) == [log.pk]
    get(operator, f"{LOGS}{log.pk}/change/")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {} SET rows = 0",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DELETE FROM ONLY {partition}",
        "UPDATE {partition} SET user_id = 2",
        "TRUNCATE {partition}",
    ],
)
def test_nobody_changes_the_record(change):
    access.record(access.Action.READ, rows=3)
    table = GenerationAccess._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass FROM {table}")
        (partition,) = cursor.fetchone()
        with pytest.raises(DatabaseError, match="append-only"):
            cursor.execute(change.format(table, partition=partition))
    assert recorded() == [(None, "read", None, 3)]


@pytest.mark.parametrize("change", ["DELETE FROM", "TRUNCATE"])
def test_nobody_changes_the_record_of_weeks_to_come(change):
    later = datetime.now(UTC) + timedelta(days=365)
    week = interval_at(later, WEEK)
    (parent,) = (
        each for each in kept_tables(conf.load()) if each.table == GenerationAccess._meta.db_table
    )
    with connection.cursor() as cursor:
        for statement in ddl.make(parent, week):
            cursor.execute(statement)
        try:
            GenerationAccess.objects.create(id=make_id(later), action="read", rows=1)
            with pytest.raises(DatabaseError, match="append-only"):
                cursor.execute(f"{change} {parent.partition(week)}")
        finally:
            cursor.execute(ddl.drop(parent, parent.partition(week)))


def test_the_record_is_shown_to_those_who_may_see_it(reviewer, log):
    get(reviewer, LOGS, q="1")
    get(reviewer, f"{LOGS}{log.pk}/change/")
    assert reviewer.get(ACCESSES).status_code == 403
    assert ACCESSES not in get(reviewer, "/admin/").html
    auditor = User.objects.create(username="auditor", is_staff=True)
    auditor.user_permissions.add(Permission.objects.get(codename="view_generationaccess"))
    client = log_in(auditor)
    assert ACCESSES in get(client, "/admin/").html
    html = get(client, ACCESSES).html
    assert "reviewers" in html
    assert "q=1" in html
    assert str(log.pk) in html
    assert len(shown(get(client, ACCESSES, q=str(log.pk)))) == 1
    assert len(shown(get(client, ACCESSES, q="reviewers"))) == 2
    assert shown(get(client, ACCESSES, action="export")) == []
    (newest, *_) = shown(get(client, ACCESSES))
    get(client, f"{ACCESSES}{newest}/change/")
    assert client.post(f"{ACCESSES}{newest}/delete/", {"post": "yes"}).status_code == 403
    assert client.get(f"{ACCESSES}add/").status_code == 403
