"""When a key was last used: written off the request's path, and never lost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from generation.errors import DatabaseUnavailable
from generation.models import ApiKey
from generation.runtime.process import Runtime
from tests.support.in_process import in_process_client
from tests.support.keys import amake_key, bearer, rows_of

Scope = ApiKey.Scope
GENERATE = "/api/v1/generate/1"


async def test_the_last_use_is_written_in_one_statement_off_the_requests_path(cache):
    for _ in range(3):
        await cache.recognise(await amake_key())
    assert not await ApiKey.objects.filter(last_used_at__isnull=False).aexists()
    holds = cache._database.pool.holds
    before = holds.count
    await cache.record_use()
    assert holds.count - before == 1
    assert await ApiKey.objects.filter(last_used_at__isnull=False).acount() == 3
    await cache.record_use()
    assert holds.count - before == 1, "nothing was used, so nothing is written"


async def test_a_later_use_stands_whichever_process_tells_it_last(cache):
    key = await amake_key()
    row = await rows_of(key).aget()
    late, early = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    for moment in (late, early):
        cache._used = {row.pk: moment}
        await cache.record_use()
    await row.arefresh_from_db()
    assert row.last_used_at == late


async def test_a_use_that_could_not_be_written_is_written_later(cache, monkeypatch):
    key = await amake_key()
    await cache.recognise(key)
    run = cache._database.run

    async def gone(*_):
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(cache._database, "run", gone)
    with pytest.raises(DatabaseUnavailable):
        await cache.record_use()
    monkeypatch.setattr(cache._database, "run", run)
    await cache.record_use()
    assert (await rows_of(key).aget()).last_used_at


async def test_what_was_used_last_is_written_at_shutdown(keys_required, users, orm):
    key = await amake_key()
    async with Runtime.open(), in_process_client() as client:
        assert (await client.post(GENERATE, headers=bearer(key))).status_code == 200
    assert (await rows_of(key).aget()).last_used_at
