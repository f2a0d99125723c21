"""`generation_stored` is sent after the commit of each log row, at least once."""

from __future__ import annotations

import asyncio
import threading
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group
from django.dispatch import receiver

from generation import generate_sync, generation_stored
from generation.models import Announcement, GenerationLog
from generation.python_api import loop_thread
from generation.runtime import announcing
from tests.support.threads import in_thread


@pytest.fixture
def heard(embedded, monkeypatch):
    """What a receiver of the project's has heard of, and whether it has the row."""
    monkeypatch.setattr(announcing, "RETRY_S", 0.0)
    monkeypatch.setattr(announcing, "LOOK_AGAIN_S", 0.05)
    ids: list[tuple[object, bool]] = []

    @receiver(generation_stored)
    def hear(generation_id, **_kwargs):
        ids.append((generation_id, GenerationLog.objects.filter(pk=generation_id).exists()))

    yield ids
    generation_stored.disconnect(hear)


def until_announced() -> None:
    """Closing announces what is due."""
    loop_thread.close()
    assert not Announcement.objects.exists()


def test_it_is_sent_once_after_the_commit(heard):
    ids = [generate_sync(1, prompt="x").id for _ in range(3)]
    until_announced()
    assert sorted(heard) == [(each, True) for each in ids]


def test_without_receivers_nothing_is_written(embedded):
    generate_sync(1, prompt="x")
    assert not Announcement.objects.exists()


def test_what_a_dead_process_left_is_sent_at_the_next_start(heard):
    left = uuid4()
    Announcement.objects.create(pk=left)
    made = generate_sync(1, prompt="x").id
    until_announced()
    assert set(heard) == {(left, False), (made, True)}


def test_a_receiver_that_fails_hears_it_again_and_its_rows_are_undone(heard):
    tried = threading.Event()

    @receiver(generation_stored)
    def fail_once(generation_id, **_kwargs):
        Group.objects.create(name=str(generation_id))
        if not tried.is_set():
            tried.set()
            raise ZeroDivisionError

    try:
        made = generate_sync(1, prompt="x").id
        until_announced()
        assert heard == [(made, True)] * 2
        Group.objects.get(name=str(made)).delete()  # one, though it was made twice
    finally:
        generation_stored.disconnect(fail_once)


def test_a_receiver_that_always_fails_is_given_up(heard, caplog):
    @receiver(generation_stored)
    def fail(**_kwargs):
        raise ZeroDivisionError

    try:
        generate_sync(1, prompt="x")
        until_announced()
    finally:
        generation_stored.disconnect(fail)
    assert len(heard) == announcing.MAX_TRIES
    assert "given up" in caplog.text


async def test_async_receivers_hear_it_too(embedded, orm):
    heard = threading.Event()

    async def hear(**_kwargs):
        heard.set()

    generation_stored.connect(hear)
    try:
        await in_thread(lambda: generate_sync(1, prompt="x"))
        assert await asyncio.to_thread(heard.wait, 10)
    finally:
        generation_stored.disconnect(hear)
