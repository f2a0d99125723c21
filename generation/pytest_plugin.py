"""Fixtures for a project's own tests; pytest finds them when the package is installed.

To import this needs neither Django's settings nor its models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from generation.testing import QueuedLLM


@pytest.fixture
def staccato_llm() -> Iterator[QueuedLLM]:
    """The LLM that `generate()` and its kin ask: a queue of answers and faults, and no socket. Rows
    are in the test's own transaction, so `django_db` and `TestCase` see them."""
    from generation.testing import override_llm

    with override_llm() as llm:
        yield llm


@pytest.fixture
def assert_no_connections_held() -> Iterator[Callable[[], None]]:
    """Fails the test if code in it makes a slow call in a transaction, or queries inside
    `released()`. Call it to assert that no connection is held at this moment, beside that of the
    test's own transaction."""
    from prometheus_client import REGISTRY

    from generation.connections.held import is_in_testcase, of_this_thread
    from generation.telemetry import metrics  # noqa: F401  # registers them

    def violations() -> float:
        return REGISTRY.get_sample_value("staccato_guard_violations_total") or 0.0

    def assert_now() -> None:
        held = [each.alias for each in of_this_thread(None) if not is_in_testcase(each)]
        assert not held, f"connections are held: {', '.join(held)}"

    before = violations()
    yield assert_now
    assert violations() == before, "a connection was held during a slow call; the log says where"
