"""`generation()`: whichever library calls the LLM, nothing is held meanwhile, and one row is left
for every fate."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction

from generation import Usage, generation, held_connections
from generation.errors import (
    ConnectionHeld,
    HeldInTransaction,
    NoReply,
    RuntimeNotOpen,
    UnknownUser,
)
from generation.models import GenerationLog, Profile
from generation.python_api import loop_thread
from generation.runtime import process
from tests.support.waiting import until


def only_row() -> GenerationLog:
    return GenerationLog.objects.select_related("body").get()


def test_a_reply_is_committed_when_the_block_is_left(embedded):
    get_user_model().objects.count()
    with generation(1, kind="summary", metadata={"ticket": "4711"}) as g:
        assert held_connections() == ()
        g.prompt("What is this?", system="Be brief.")
        g.reply(
            "A test.",
            usage=Usage(3, 2),
            provider="openai",
            model="gpt-5-mini",
            cost_usd=Decimal("0.001"),
        )
    row = only_row()
    assert row.id == g.id == g.generation.id
    assert (row.provider, row.model, row.status) == ("openai", "gpt-5-mini", "succeeded")
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (3, 2, Decimal("0.001"))
    assert row.metadata == {"kind": "summary", "ticket": "4711"}
    assert (row.body.prompt, row.body.system) == ("What is this?", "Be brief.")
    assert g.generation.result == row.body.result == "A test."


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 3, "output_tokens": 2},
        {"prompt_tokens": 3, "completion_tokens": 2},
        SimpleNamespace(input_tokens=3, output_tokens=2),
        SimpleNamespace(prompt_tokens=3, completion_tokens=2),
    ],
)
def test_each_librarys_usage_is_understood(embedded, usage):
    with generation() as g:
        g.reply("x", usage=usage)
    row = only_row()
    assert (row.input_tokens, row.output_tokens, row.total_tokens) == (3, 2, 5)


async def test_async_code_with_a_library_that_fails_leaves_what_it_raised(embedded, orm):
    with pytest.raises(ZeroDivisionError):
        async with generation(1) as g:
            g.prompt("x")
            raise ZeroDivisionError("the library's own")
    row = await GenerationLog.objects.select_related("body").aget()
    assert (row.id, row.status, row.error_type) == (g.id, "failed", "own-call-failed")
    assert row.body.error == "ZeroDivisionError: the library's own"


def test_its_timeout_is_a_timeout(embedded):
    with pytest.raises(TimeoutError), generation(1):
        raise TimeoutError
    assert only_row().status == "timed_out"


async def test_a_block_that_is_cancelled_leaves_its_row(embedded, orm):
    inside = asyncio.Event()

    async def ask() -> None:
        async with generation(1) as g:
            g.prompt("x")
            inside.set()
            await asyncio.Event().wait()

    asking = asyncio.create_task(ask())
    await inside.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(GenerationLog.objects.acount, "a row")
    row = await GenerationLog.objects.select_related("body").aget()
    assert (row.status, row.error_type, row.body.prompt) == ("cancelled", "client-left", "x")


def test_a_block_without_a_reply_is_a_failure(embedded):
    with pytest.raises(NoReply, match=r"reply\(\)"), generation(1):
        pass
    assert only_row().error_type == "no-reply"


def test_a_reply_before_an_error_was_paid_for(embedded):
    with pytest.raises(ZeroDivisionError), generation(1) as g:
        g.reply("half", usage=Usage(3, 2))
        raise ZeroDivisionError
    row = only_row()
    assert (row.status, row.output_tokens, row.body.result) == ("failed", 2, "half")


def test_who_may_not_generate_does_not_enter(embedded):
    with pytest.raises(UnknownUser), generation(4):
        raise AssertionError("entered")
    assert not GenerationLog.objects.exists()


def test_a_transaction_round_the_block_is_refused_with_debug_on(embedded, settings):
    settings.DEBUG = True
    with transaction.atomic(), pytest.raises(HeldInTransaction), generation(1):
        raise AssertionError("entered")


def test_a_query_inside_is_found_and_the_row_is_left_all_the_same(embedded, settings):
    settings.DEBUG = True
    with pytest.raises(ConnectionHeld), generation(1) as g:
        get_user_model().objects.count()
        g.reply("x")
    assert only_row().status == "succeeded"


def test_the_users_choice_of_what_is_kept_counts(embedded):
    Profile.objects.filter(user_id=1).update(log_content="metadata")
    with generation(1) as g:
        g.prompt("private")
        g.reply("secret")
    row = only_row()
    assert (row.body.prompt, row.body.result) == ("", "")


def test_a_shutdown_that_cant_wait_leaves_the_row(embedded, settings):
    settings.STACCATO = {**settings.STACCATO, "DRAIN_TIMEOUT": "0.1"}
    with pytest.raises(RuntimeNotOpen, match="is ending"), generation(1) as g:
        g.prompt("x")
        loop_thread.close()
        assert process.opened() is None
        assert only_row().error_type == "drained"
        g.reply("too late")
