from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import Client

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
async def orm(transactional_db: None) -> AsyncIterator[None]:
    """For async tests: closes what the thread of their ORM calls has opened."""
    yield
    await sync_to_async(connections.close_all)()
