from __future__ import annotations

import pytest
from django.db import connections

from generation.python_api import loop_thread
from generation.runtime.process import Runtime


@pytest.fixture
def embedded(users, monkeypatch):
    """A project without a lifespan: the runtime opens at its first use, and is closed after the
    test. Without its housekeeping, whose statements would meet the emptying of the tables."""

    async def nothing(_runtime: Runtime) -> None: ...

    monkeypatch.setattr(Runtime, "tidy_up", nothing)
    connections.close_all()
    yield
    loop_thread.close()
    connections.close_all()
