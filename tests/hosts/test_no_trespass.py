"""The app leaves its host alone: its pages, its process, its rows, its admin."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("prefix", ["", "llm/"])
def test_a_host_stays_as_it_is(host, prefix):
    host.run("-m", "tests.hosts.neighbours", PREFIX=prefix)


def test_a_check_says_what_can_not_work(host):
    def check(**more: str) -> str:
        return host.run("-m", "django", "check", "--fail-level", "WARNING", status=1, **more)

    assert "staccato.E009" in (said := check(DATABASE="other"))
    assert "the users are in 'default'" in said
    assert "staccato.W003" in check(LOOK_AFTER="unfold unfold.contrib.filters")
    assert "staccato.W003" in check(LOOK="unfold")
