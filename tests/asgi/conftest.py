"""A service for the tests of a file that need no settings of their own."""

from __future__ import annotations

import tempfile

import pytest

from tests.support import service


@pytest.fixture(scope="module")
def running(postgres_url, emptied_after):
    # Its journals are its own, so that no other service takes it for a sibling.
    with (
        emptied_after(),
        tempfile.TemporaryDirectory() as journals,
        service.shared(
            postgres_url, LLM_PROVIDER="simulated", STACCATO_JOURNAL_DIR=journals
        ) as shared,
    ):
        yield shared


@pytest.fixture
def edge(running, users):
    return running
