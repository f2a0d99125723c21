from __future__ import annotations

import pytest
from django.db import connections

from generation.python_api import loop_thread
from tests.support.in_process import quiet_runtimes


@pytest.fixture
def embedded(users):
    """A project without a lifespan: the runtime opens at its first use, and is closed after the
    test."""
    connections.close_all()
    with quiet_runtimes():
        yield
        loop_thread.close()
    connections.close_all()
