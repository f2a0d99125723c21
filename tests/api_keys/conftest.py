"""A service that asks for keys."""

from __future__ import annotations

import asyncio

import pytest

from generation.api_keys.cache import Keys
from tests.support.keys import Clock


@pytest.fixture
def keys_required(settings):
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": "1"}


@pytest.fixture
async def closed(keys_required, client):
    """The service in this process, which asks for keys."""
    return client


@pytest.fixture
async def ring(runtime, monkeypatch):
    """The keys of a process whose clock stands still."""
    clock = Clock()
    ring = Keys(runtime.database, runtime.settings, clock)
    ring.clock = clock  # type: ignore[attr-defined]
    task = asyncio.create_task(ring.batchers[0].run())
    yield ring
    ring.batchers[0].close()
    await task
