"""Who looks at the stored texts."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from tests.support.admin import log_in


@pytest.fixture
def user(committed):
    """User 1."""
    return get_user_model().objects.create(username="user1")


@pytest.fixture
def staff(user) -> Client:
    """May see and do all."""
    return log_in(get_user_model().objects.create_superuser("root"))
