"""`generate()`, `generate_sync()` and `stream()`, from whatever code of a project."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import transaction

from generation import (
    aheld_connections,
    generate,
    generate_sync,
    held_connections,
    stream,
)
from generation.conversation import Message, Text
from generation.errors import (
    HeldInTransaction,
    IdempotencyKeyReused,
    InvalidRequest,
    LLMTimedOut,
    MissingVariable,
    UnknownUser,
    WrongThread,
)
from generation.events import Start, TextDelta
from generation.models import GenerationLog, UsageLog
from generation.runtime import process
from generation.telemetry import metrics
from tests.support.threads import in_thread
from tests.support.waiting import until


def rows() -> list[GenerationLog]:
    return list(GenerationLog.objects.select_related("body"))


@pytest.fixture
def slow_llm(embedded, settings):
    settings.STACCATO = {**settings.STACCATO, "LLM_SIMULATED_LATENCY": "30"}


# --- what can be asked ------------------------------------------------------------------------


def test_an_answer_comes_back_and_leaves_one_row(embedded):
    answer = generate_sync(1, prompt="Why is the sky blue?", metadata={"ticket": "4711"})
    (row,) = rows()
    assert (row.id, row.user_id, row.status) == (answer.id, 1, "succeeded")
    assert row.body.prompt == "Why is the sky blue?"
    assert row.body.result == answer.result
    assert row.metadata == {"ticket": "4711"}


def test_input_and_variables_fill_the_users_template(embedded):
    generate_sync(get_user_model().objects.get(pk=3), input="snow", variables={"tone": "warm"})
    assert rows()[0].body.prompt == "In a warm tone: snow"
    with pytest.raises(MissingVariable):
        generate_sync(3, input="snow")
    assert len(rows()) == 1


def test_messages_are_dicts_or_records(embedded):
    generate_sync(
        5,  # has no profile, and needs none
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hi."},
            Message("user", (Text("Why?"),)),
        ],
    )
    (row,) = rows()
    assert (row.body.prompt, row.body.system) == ("Why?", "Be brief.")


@pytest.mark.parametrize("nobody", [None, AnonymousUser()])
def test_nobody_in_particular_may_ask(embedded, nobody):
    generate_sync(nobody, prompt="Why?")
    assert rows()[0].user_id is None
    assert UsageLog.objects.count() == 0


@pytest.mark.parametrize(
    ("user", "asked"),
    [
        (None, {}),
        (None, {"input": "a template is a user's"}),
        (None, {"prompt": "x", "idempotency_key": "k"}),
        (1, {"prompt": "x", "input": "y"}),
        (1, {"prompt": " "}),
        (1, {"prompt": "\0"}),
        (1, {"prompt": "x", "max_tokens": 0}),
        (1, {"prompt": "x", "timeout": 0}),
        (1, {"prompt": "x", "metadata": {"": "x"}}),
        (1, {"prompt": "x", "metadata": {str(number): "" for number in range(17)}}),
        (1, {"messages": [{"role": "assistant", "content": "x"}]}),
        (1, {"messages": [{"role": "robot", "content": "x"}]}),
        (1, {"messages": [{"role": "user", "content": ["x"]}]}),
    ],
)
def test_what_makes_no_request_is_refused_before_anything_is_opened(embedded, user, asked):
    with pytest.raises(InvalidRequest):
        generate_sync(user, **asked)
    assert process.opened() is None


def test_an_argument_that_does_not_exist_is_a_type_error(embedded):
    with pytest.raises(TypeError, match="promt"):
        generate_sync(1, promt="x")  # type: ignore[call-arg]  # it is the test


def test_a_user_who_may_not_log_in_gets_no_answer(embedded):
    with pytest.raises(UnknownUser):
        generate_sync(4, prompt="x")
    assert rows() == []


def test_a_repetition_under_a_key_gets_the_first_answer(embedded):
    first = generate_sync(1, prompt="x", idempotency_key="k")
    again = generate_sync(1, prompt="x", idempotency_key="k")
    assert (again.id, again.replayed) == (first.id, True)
    with pytest.raises(IdempotencyKeyReused):
        generate_sync(1, prompt="y", idempotency_key="k")
    assert len(rows()) == 1


# --- connections ------------------------------------------------------------------------------


def test_the_callers_connections_are_given_back(embedded):
    rows()
    assert held_connections()
    generate_sync(1, prompt="x")
    assert held_connections() == ()


async def test_those_of_async_callers_too(embedded, orm):
    await GenerationLog.objects.acount()
    await generate(1, prompt="x")
    assert await aheld_connections() == ()


def test_a_locked_row_during_the_call_is_refused_with_debug_on(embedded, settings):
    settings.DEBUG = True
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=1)
        with pytest.raises(HeldInTransaction):
            generate_sync(1, prompt="x")
    assert rows() == []


def test_and_counted_with_debug_off(embedded, settings, caplog):
    generate_sync(None, prompt="x")  # the project's own checks want more where DEBUG is off
    settings.DEBUG = False
    before = metrics.GUARD_VIOLATIONS._value.get()
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=1)
        generate_sync(None, prompt="x")
    assert metrics.GUARD_VIOLATIONS._value.get() == before + 1
    assert "a transaction is open on default" in caplog.text


# --- threads and loops ------------------------------------------------------------------------


async def test_the_synchronous_call_would_block_a_loop_so_it_is_refused(embedded):
    with pytest.raises(WrongThread, match="await generate"):
        generate_sync(1, prompt="x")


def test_loops_come_and_go_and_the_runtime_stays(embedded):
    asyncio.run(generate(1, prompt="x"))
    first = process.opened()
    asyncio.run(generate(1, prompt="x"))
    assert process.opened() is first
    assert len(rows()) == 2


def test_threads_that_ask_first_at_once_open_one_runtime(embedded):
    start = threading.Barrier(20)

    def ask(_number: int):
        start.wait()
        return generate_sync(1, prompt="x").id

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(ask, range(20)))
    assert {row.id for row in rows()} == ids


async def test_an_open_runtime_is_used_whichever_loop_it_is_in(runtime):
    """With a lifespan, async views share the server's loop and synchronous ones reach into it."""
    first = await generate(1, prompt="x")
    second = await in_thread(lambda: generate_sync(1, prompt="x"))
    assert process.current() is runtime
    found = [row.id async for row in GenerationLog.objects.all()]
    assert set(found) == {first.id, second.id}


def test_what_keeps_the_runtime_from_opening_is_raised_and_tried_again(embedded, settings):
    good = settings.STACCATO
    settings.STACCATO = {**good, "LLM_PROVIDER": "anthropic"}
    with pytest.raises(Exception, match="ANTHROPIC_API_KEY"):
        generate_sync(1, prompt="x")
    settings.STACCATO = good
    generate_sync(1, prompt="x")


# --- early ends -------------------------------------------------------------------------------


async def test_a_cancelled_call_ends_at_once_and_leaves_its_row(slow_llm, orm):
    call = asyncio.create_task(generate(1, prompt="x"))
    await until(lambda: process.opened() and process.current().llm.in_flight, "a call in the LLM")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await until_one_row() == "cancelled"


async def test_a_timeout_of_the_callers_own_is_a_timeout_of_the_llm(slow_llm, orm):
    with pytest.raises(LLMTimedOut):
        await generate(1, prompt="x", timeout=0.2)
    assert await until_one_row() == "timed_out"


async def until_one_row() -> str:
    await until(GenerationLog.objects.acount, "a row")
    return (await GenerationLog.objects.aget()).status


# --- streams ----------------------------------------------------------------------------------


async def test_a_stream_brings_the_answer_in_events_and_its_row_at_the_end(embedded, orm):
    async with stream(1, prompt="Tell me a story.") as answer:
        events = [event async for event in answer]
    assert answer.generation is not None
    assert isinstance(events[0], Start)
    assert isinstance(events[-1], TextDelta)
    row = await GenerationLog.objects.aget()
    assert row.id == answer.id == answer.generation.id
    assert row.is_streamed


async def test_its_texts_are_the_answers_text(embedded):
    async with stream(1, prompt="x") as answer:
        pieces = [text async for text in answer.texts()]
    assert "".join(pieces) == answer.generation.result


async def test_a_repetition_under_a_key_streams_the_first_answer(embedded):
    first = await generate(1, prompt="x", idempotency_key="k")
    async with stream(1, prompt="x", idempotency_key="k") as answer:
        pieces = [text async for text in answer.texts()]
    assert "".join(pieces) == first.result
    assert answer.generation.replayed


async def test_leaving_a_stream_abandons_its_call(embedded, settings, orm):
    settings.STACCATO = {**settings.STACCATO, "LLM_SIMULATED_LATENCY": "0.8"}
    async with stream(1, prompt="x") as answer:
        async for _text in answer.texts():
            break
    assert answer.generation is None
    assert await until_one_row() == "cancelled"


async def test_a_stream_is_read_in_its_block(embedded):
    answer = stream(1, prompt="x")
    with pytest.raises(RuntimeError, match="async with"):
        async for _event in answer:
            pass


async def test_a_stream_that_fails_raises_and_leaves_its_row(slow_llm, orm):
    with pytest.raises(LLMTimedOut):
        async with stream(1, prompt="x", timeout=0.2) as answer:
            async for _event in answer:
                pass
    assert await until_one_row() == "timed_out"
    assert answer.generation is None
