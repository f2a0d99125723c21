"""The page *Storage*: what there is, what is dropped when, and a warning in time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from generation.admin import storage
from generation.models import GenerationLog, Maintenance
from generation.partitions.catalog import Found, Partition
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY, ZERO_ID, first_id
from tests.support.admin import LOGS, get, log_in, save_log

STORAGE = "/admin/generation/maintenance/"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def stored(*days_ago: int, size: int = 1000, **flags) -> storage.Stored:
    """Parts of these days, kept for five."""
    midnight = NOW.replace(hour=0)
    parts = [
        Partition(
            f"part_{days}",
            first_id(midnight - timedelta(days=days)),
            first_id(midnight - timedelta(days=days - 1)),
            **flags,
        )
        for days in sorted(days_ago, reverse=True)
    ]
    found = Found(Parent("parted", DAY), NOW, parts)
    return storage.Stored(found, timedelta(days=5), [storage.Part(one, 7, size) for one in parts])


def test_each_partition_shows_with_its_size_and_its_last_day(staff):
    save_log()
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {GenerationLog._meta.db_table}")
    done = {"holder": ZERO_ID, "leased_until": NOW, "done_at": NOW, "done_by": "process 7 on h"}
    Maintenance.objects.update_or_create(task="partitions", defaults=done)
    html = get(staff, STORAGE).html
    assert "process 7 on h" in html
    week = re.search(r'<tr title="generation_generationlog_20260126">.*?</tr>', html).group()
    assert "2026-01-26 – 2026-02-01" in week
    assert "<td>1</td>" in week
    assert re.search(r"[KM]B</td>", week)
    assert "partitions made ahead" in html
    assert "partitions end on" not in html
    assert f'href="{STORAGE}"' in get(staff, LOGS).html, "the sidebar leads to it"


def test_only_who_may_sees_it(reviewer, user):
    assert reviewer.get(STORAGE).status_code == 403
    assert STORAGE not in get(reviewer, LOGS).html
    watcher = get_user_model().objects.create_user("watcher", is_staff=True)
    watcher.user_permissions.add(Permission.objects.get(codename="view_maintenance"))
    assert "Kept for" in get(log_in(watcher), STORAGE).html


def test_the_page_reads_catalogs_within_a_limit(staff):
    with CaptureQueriesContext(connection) as queries:
        get(staff, STORAGE)
    ours = [each["sql"] for each in queries if "generation" in each["sql"].lower()]
    assert any("statement_timeout" in each["sql"] for each in queries)
    assert not [sql for sql in ours if re.search(r'FROM "?generation_(log|generation)', sql)]


def test_a_database_that_is_slow_gets_a_sentence(staff, monkeypatch):
    monkeypatch.setattr(storage, "TIME_LIMIT_MS", 20)
    monkeypatch.setattr(storage, "_TABLES", "SELECT pg_sleep(30), %s::text[]")
    assert "did not answer within 0.02 s" in get(staff, STORAGE).html


def test_partitions_that_end_soon_are_warned_of(staff, monkeypatch):
    monkeypatch.setattr(storage, "WARN_BELOW", timedelta(days=365))
    assert "partitions end on" in get(staff, STORAGE).html


def test_what_is_dropped_when():
    def dropped(days_ago: int, *, archive_first: bool = False, **flags) -> str:
        each = stored(days_ago, **flags)
        return storage._dropped(each.parts[0].partition, each, archive_first=archive_first)

    assert dropped(2) == "2026-03-14"
    assert dropped(30) == "at the next maintenance"
    assert dropped(30, archive_first=True) == "waits to be archived"
    assert dropped(30, archive_first=True, is_archived=True) == "at the next maintenance"
    assert dropped(30, is_pending=True) == "being dropped"


def test_growth_is_what_recent_days_brought():
    assert stored(0, 1, 2).growth == pytest.approx(3000 / 2.5), "today is half over"
    assert stored(-3, -2, 1).growth == 1000, "partitions made ahead hold nothing yet"
    assert stored(0).growth is None, "less than a day is too short to tell"


def test_the_page_has_no_other(staff):
    assert staff.get(f"{STORAGE}partitions/change/").status_code == 404
    assert reverse("admin:generation_maintenance_changelist") == STORAGE
