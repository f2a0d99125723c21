"""The app leaves its host alone: its pages, its process, its rows, its admin."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.apps import apps

from generation import checks


def test_a_host_stays_as_it_is(host):
    host.run("-m", "tests.hosts.neighbours")


def test_a_database_without_the_users_can_not_work(settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES, "other", settings.DATABASES["default"])
    settings.STACCATO = {**settings.STACCATO, "DATABASE": "other"}
    (error,) = checks.check_database()
    assert error.id == "staccato.E009"
    assert "the users are in 'default'" in error.msg


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (["django.contrib.admin"], []),
        (["unfold", "unfold.contrib.filters", "django.contrib.admin"], []),
        (["unfold"], []),
        (["unfold", "django.contrib.admin"], ["staccato.W003"]),
        (["django.contrib.admin", "unfold", "unfold.contrib.filters"], ["staccato.W003"]),
    ],
)
def test_half_of_unfold_is_reported(monkeypatch, listed, found):
    """It replaces `admin.site`, after which what was registered before is lost."""
    configs = [SimpleNamespace(name=name) for name in listed]
    monkeypatch.setattr(apps, "get_app_configs", lambda: configs)
    assert [message.id for message in checks.check_admin()] == found
