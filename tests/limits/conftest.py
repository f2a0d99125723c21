from __future__ import annotations

import contextlib
from zoneinfo import ZoneInfo

import pytest
from django.db import connections

from generation import conf
from generation.database.batching import running
from generation.database.engine import Database
from generation.limits.ledger import Ledger
from generation.limits.rules import Rule
from generation.models import Limit
from generation.store import Store
from tests.support.keys import Clock
from tests.support.windows import zone_of_noon


@pytest.fixture
async def store(committed, orm):
    """The tables without the rest of a process, whose start would take longer than a test."""
    settings = conf.load()
    django_database = connections.settings[settings.database]
    async with Database.open(settings, django_database, strict=True) as database:
        opened = Store(database, settings)
        async with running(opened.batchers):
            yield opened


@pytest.fixture
async def process(store):
    """Opens ledgers, each as a process of its own has one; they are not closed."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**options) -> Ledger:
            options = {"ttl_s": 60.0, **options}
            ledger = Ledger(store._database, store.limits, **options)
            await stack.enter_async_context(running(ledger.batchers))
            return ledger

        yield start


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def limit(store):
    """Makes a row of Limit. Returns its rule."""

    async def make(unit="requests", amount=50, window="month", **values) -> Rule:
        zone = zone_of_noon()
        row = await Limit.objects.acreate(
            scope="all", unit=unit, amount=amount, window=window, zone=zone, **values
        )
        return Rule(row.pk, "all", "", "", "", unit, amount, window, ZoneInfo(zone))

    return make


@pytest.fixture
async def charged(sql):
    """Returns what is granted, settled and committed in all."""

    async def read():
        leases = await sql.fetchrow(
            "SELECT coalesce(sum(granted), 0)::int AS granted,"
            " coalesce(sum(settled), 0)::int AS settled FROM generation_limitlease"
        )
        committed = await sql.fetchval(
            "SELECT coalesce(sum(committed), 0)::int FROM generation_limitwindow"
        )
        return leases["granted"], leases["settled"], committed

    return read
