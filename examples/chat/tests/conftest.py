from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import Client
from pytest_django.plugin import DjangoDbBlocker

from chat.models import Conversation
from people.models import User


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", password="her own", persona="Be kind.")


@pytest.fixture
def conversation(ada: User) -> Conversation:
    return Conversation.objects.create(owner=ada)


@pytest.fixture
def browser(ada: User, client: Client) -> Client:
    client.force_login(ada)
    return client


@pytest.fixture
async def eve(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[User]:
    """For async tests, whose ORM calls run in a thread with a connection of its own: her rows are
    committed, and removed after the test."""
    with django_db_blocker.unblock():
        yield await User.objects.acreate_user("eve", password="her own")
        await Conversation.objects.all().adelete()
        await User.objects.all().adelete()
        await sync_to_async(connections.close_all)()
