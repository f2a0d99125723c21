"""A service that asks for keys."""

from __future__ import annotations

import pytest

from tests.support.keys import Clock, cache_of


@pytest.fixture
def keys_required(settings):
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": "1"}


@pytest.fixture
async def closed(keys_required, client):
    """The service in this process, which asks for keys."""
    return client


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(runtime, clock):
    """The keys of a process whose clock stands still."""
    return cache_of(runtime, clock=clock)
