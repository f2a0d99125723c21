"""A user's key may be an integer, a UUID or text, all along the essential path."""

from __future__ import annotations

import pytest

UNFOLD = "unfold unfold.contrib.filters"


@pytest.mark.parametrize(
    ("kind", "look", "driver"),
    [("integer", UNFOLD, "psycopg"), ("uuid", "", "psycopg2"), ("text", "", "psycopg")],
)
def test_users_have_keys_of_this_kind(host, kind, look, driver):
    """Also in both looks of the admin, and with both of Django's drivers."""
    host.run("-m", "tests.hosts.essentials", USER_KEY=kind, LOOK=look, DRIVER=driver)
