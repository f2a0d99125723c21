"""How much the log stores, from when to when, and what is dropped on which day."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connections, transaction
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import path

from generation import conf
from generation.admin.read_only import ReadOnlyAdmin
from generation.log_search.walk import is_cut_off
from generation.models import Maintenance, UsageLog
from generation.partitions.catalog import Found, Partition, partition_of
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY, ZERO_ID, moment_of
from generation.partitions.maintenance import PARTITIONS, kept_tables
from generation.partitions.plan import covered_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.http import HttpRequest, HttpResponse

TIME_LIMIT_MS = 5000
WARN_BELOW = timedelta(days=14)
GROWTH_OVER = timedelta(days=28)
TITLES = ("Log rows, by week", "Prompts and results, by day", "Record of accesses, by week")

_TABLES = """
SELECT whole.relname, whole.relkind = 'p' AS is_partitioned, statement_timestamp(),
    part.relname, pg_get_expr(part.relpartbound, part.oid), inhdetachpending,
    obj_description(part.oid, 'pg_class'), coalesce(part.reltuples, whole.reltuples)::bigint,
    pg_relation_size(coalesce(part.oid, whole.oid)),
    pg_total_relation_size(coalesce(part.oid, whole.oid))
FROM pg_class AS whole
LEFT JOIN pg_inherits ON inhparent = whole.oid
LEFT JOIN pg_class AS part ON part.oid = inhrelid
WHERE whole.oid IN (SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name)
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A partition, or a table that has none."""

    partition: Partition
    rows: int | None  # an estimate; None before PostgreSQL has made its first
    size: int  # in bytes, with indexes and long texts


@dataclass(frozen=True, slots=True)
class Stored:
    """A table and its parts, by time."""

    found: Found
    kept: timedelta
    parts: Sequence[Part]

    @property
    def begun(self) -> list[Part]:
        now = self.found.now
        return [part for part in self.parts if moment_of(part.partition.start) <= now]

    @property
    def growth(self) -> float | None:
        """The bytes that were added a day recently; None if it is too early to say."""
        now = self.found.now
        recent = [
            part
            for part in self.begun
            if part.rows != 0
            and part.partition.start != ZERO_ID
            and moment_of(part.partition.end) > now - GROWTH_OVER
        ]
        days = sum(
            (min(now, moment_of(part.partition.end)) - moment_of(part.partition.start)) / DAY
            for part in recent
        )
        return sum(part.size for part in recent) / days if days >= 1 else None


@admin.register(Maintenance)
class StorageAdmin(ReadOnlyAdmin):
    """One page, in the place of a list."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="generation_maintenance_changelist")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            context = read()
        except OperationalError as error:
            if not is_cut_off(error):
                raise
            context = {}
            messages.warning(
                request, f"The database did not answer within {TIME_LIMIT_MS / 1000:g} s."
            )
        context |= {
            **self.admin_site.each_context(request),
            "title": "Storage",
            "opts": self.opts,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/generation/maintenance/storage.html", context)


def read() -> dict[str, Any]:
    """Returns the page's context. Its queries have one limit of time each, and read catalogs only.

    Raises `OperationalError`.
    """
    settings = conf.load()
    kept = kept_tables(settings)
    usage = Parent(UsageLog._meta.db_table, DAY)  # by its own key, so it has no partitions
    connection = connections[settings.database]
    with transaction.atomic(settings.database), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(TIME_LIMIT_MS)])
        cursor.execute(_TABLES, [[parent.table for parent in (*kept, usage)]])
        rows = cursor.fetchall()
        done = Maintenance.objects.using(settings.database).filter(task=PARTITIONS).first()
    tables = [_stored(parent, days, rows) for parent, days in kept.items()]
    now = tables[0].found.now
    until = min(covered_until(each.found) for each in tables)
    return {
        "tables": [
            {"title": title, **_shown(each, archive_first=settings.archive_first)}
            for title, each in zip(TITLES, tables, strict=True)
        ],
        "plain": [row[0] for row in rows if not row[1] and row[0] != usage.table],
        "usage": [
            {"rows": _count(_rows(row)), "size": filesizeformat(row[9])}
            for row in rows
            if row[0] == usage.table
        ],
        "usage_kept": settings.usage_retention_days,
        "ahead_days": (until - now).days,
        "ends_soon": until - now < WARN_BELOW,
        "ends_on": _day(until),
        "done": done,
        "archive_first": settings.archive_first,
    }


def _stored(parent: Parent, kept: timedelta, rows: Sequence[Any]) -> Stored:
    own = [row for row in rows if row[0] == parent.table]
    parts = [
        Part(partition_of(row[3], row[4], row[5], row[6]), _rows(row), row[9])
        for row in own
        if row[3] is not None
    ]
    parts.sort(key=lambda part: part.partition.start)
    now = own[0][2] if own else datetime.now(UTC)
    return Stored(Found(parent, now, [part.partition for part in parts]), kept, parts)


def _rows(row: Sequence[Any]) -> int | None:
    estimate, heap_bytes = row[7], row[8]
    if heap_bytes == 0:
        return 0
    return None if estimate < 0 else int(estimate)


def _shown(stored: Stored, *, archive_first: bool) -> dict[str, Any]:
    begun = stored.begun[::-1]
    largest = max((part.size for part in begun), default=1)
    known = [part.rows for part in begun if part.rows is not None]
    growth = stored.growth
    return {
        "kept": stored.kept.days,
        "rows": _count(sum(known) if known or not begun else None),
        "size": filesizeformat(sum(part.size for part in stored.parts)),
        "growth": "–" if growth is None else filesizeformat(growth),
        "ahead": len(stored.parts) - len(begun),
        "until": _day(covered_until(stored.found)),
        "parts": [
            {
                "name": part.partition.name,
                "period": _period(part.partition),
                "rows": _count(part.rows),
                "size": filesizeformat(part.size),
                "percent": f"{100 * part.size / largest:.1f}",
                "dropped": _dropped(part.partition, stored, archive_first=archive_first),
            }
            for part in begun
        ],
    }


def _dropped(partition: Partition, stored: Stored, *, archive_first: bool) -> str:
    """Returns on which day, or what it waits for."""
    if partition.is_pending:
        return "being dropped"
    try:
        moment = moment_of(partition.end) + stored.kept
    except OverflowError:
        return "never"
    if moment > stored.found.now:
        return _day(moment)
    waits = archive_first and not partition.is_archived
    return "waits to be archived" if waits else "at the next maintenance"


def _period(partition: Partition) -> str:
    last = _day(moment_of(partition.end) - timedelta(milliseconds=1))
    if partition.start == ZERO_ID:
        return f"until {last}"
    first = _day(moment_of(partition.start))
    return first if first == last else f"{first} – {last}"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _count(rows: int | None) -> str:
    return "–" if rows is None else f"{rows:,}"
