"""A service for the tests of a file that need no settings of their own."""

from __future__ import annotations

import pytest

from tests.support import service


@pytest.fixture(scope="module")
def running(postgres_url, emptied_after):
    with emptied_after(), service.shared(postgres_url, LLM_PROVIDER="simulated") as shared:
        yield shared


@pytest.fixture
def edge(running, users):
    return running
