"""Who visits the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client

from generation.models import GenerationLog
from tests.support.admin import log_in

User = get_user_model()
Status = GenerationLog.Status


@pytest.fixture
def user(committed):
    """User 1."""
    return User.objects.create(username="user1")


@pytest.fixture
def short_pages(monkeypatch):
    """Ten rows each."""
    monkeypatch.setattr(admin.site.get_model_admin(GenerationLog), "list_per_page", 10)


@pytest.fixture
def staff(user) -> Client:
    """May see and do all."""
    return log_in(User.objects.create_superuser("root"))


def member(group: str) -> Any:
    user = User.objects.create_user(group.lower(), is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    return user


@pytest.fixture
def reviewer(committed) -> Client:
    """May read texts."""
    return log_in(member("Reviewers"))


@pytest.fixture
def operator(committed) -> Client:
    """May see figures only."""
    return log_in(member("Operators"))
