"""A stream's events reach every reader, and no reader makes the process keep more than it may."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.events import PIECE_CHARS, TextDelta, ToolArguments
from generation.pipeline.relay import JOINED_AT, LAG_CHARS, Relay
from tests.support.pieces import ANSWERS, spelled
from tests.support.waiting import HANG_S

HALF = TextDelta("x" * (LAG_CHARS // 2 + 1))
STEPS = st.lists(  # some events of an answer, and what two readers do then
    st.tuples(st.integers(0, 3 * JOINED_AT), st.sets(st.sampled_from(["early", "slow", "begin"])))
)


def put(relay, *events) -> None:
    relay.events += events
    relay.put(relay.events)


async def all_of(reader) -> list:
    found = []
    while events := await reader.read():
        found += events
    return found


async def test_each_reader_gets_all_events_whenever_it_comes():
    relay = Relay()
    early = asyncio.create_task(all_of(relay.reader()))
    events = [TextDelta(str(number)) for number in range(10)]
    for event in events[:5]:
        put(relay, event)
    late = asyncio.create_task(all_of(relay.reader()))
    await asyncio.sleep(0)
    put(relay, *events[5:])
    relay.close()
    assert await early == await late == events
    assert await all_of(relay.reader()) == events, "also one that comes after the end"
    assert relay.size == 10


async def test_the_writer_waits_for_the_slowest_reader_and_no_longer():
    relay = Relay()
    quick, slow = relay.reader(), relay.reader()
    put(relay, HALF)
    put(relay, HALF)
    writing = asyncio.create_task(relay.room())
    await quick.read()
    waiting = asyncio.create_task(quick.read())
    await asyncio.sleep(0)
    assert not writing.done(), "the slow reader has taken nothing yet"
    await slow.read()
    assert not writing.done(), "it may still be sending what it has read"
    again = asyncio.create_task(slow.read())
    await asyncio.wait_for(writing, HANG_S)
    relay.close()
    await asyncio.gather(waiting, again)


async def test_a_reader_that_has_all_waits_for_more_after_a_joining():
    relay = Relay()
    reader = relay.reader()
    put(relay, *[TextDelta("a")] * JOINED_AT)
    await reader.read()
    put(relay, TextDelta("b"))
    await reader.read()
    put(relay, TextDelta("c"))
    assert await reader.read() == [TextDelta("c")]
    assert len(relay.events) < JOINED_AT, "they were joined"
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    assert not waiting.done(), "no events would say that the stream has ended"
    put(relay, TextDelta("d"))
    assert await waiting == [TextDelta("d")]


async def test_a_reader_that_leaves_holds_nobody_up():
    relay = Relay()
    gone = relay.reader()
    put(relay, HALF)
    put(relay, HALF)
    writing = asyncio.create_task(relay.room())
    await asyncio.sleep(0)
    gone.close()
    await asyncio.wait_for(writing, HANG_S)
    assert not relay.readers


async def test_without_readers_the_writer_waits_for_nobody():
    relay = Relay()
    for _ in range(5):
        put(relay, HALF)
        await asyncio.wait_for(relay.room(), HANG_S)


async def test_a_reader_that_is_cancelled_while_it_waits_may_read_on():
    relay = Relay()
    reader = relay.reader()
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    put(relay, TextDelta("on"))
    assert await reader.read() == [TextDelta("on")]


async def test_a_reader_may_take_events_in_the_writers_step():
    relay = Relay()
    reader = relay.reader()
    taken: list = []
    is_ready = True

    def take() -> bool:
        if is_ready:
            taken.extend(reader.take())
        return is_ready

    reader.on_news = take
    put(relay, TextDelta("0"))
    assert not taken, "nobody waits in read(), so the task may be sending what came before"
    assert await reader.read() == [TextDelta("0")]

    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    put(relay, HALF)
    put(relay, HALF, TextDelta("1"))
    assert taken == [HALF, HALF, TextDelta("1")], "not a turn of the loop later"
    assert relay.has_room, "what is taken at once holds nobody up"
    is_ready = False
    put(relay, TextDelta("2"))
    put(relay, TextDelta("3"))
    assert await reading == [TextDelta("2"), TextDelta("3")], "what it refuses, read() returns"
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    is_ready = True
    relay.close()
    assert await reading == []


async def test_a_bug_in_taking_events_is_the_readers_and_not_the_writers():
    relay = Relay()
    reader, other = relay.reader(), relay.reader()
    reader.on_news = lambda: bool(1 / 0)
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    put(relay, HALF)
    with pytest.raises(ZeroDivisionError):
        await reading
    assert await other.read() == [HALF]


@given(ANSWERS, STEPS)
def test_what_is_joined_is_the_same_answer_to_each_reader_at_any_moment(answer, steps):
    relay = Relay()
    readers = {"early": relay.reader(), "slow": relay.reader()}
    found: dict = {name: [] for name in readers}
    end = 0
    for number, acts in [*steps, (len(answer), {"early", "slow"})]:
        put(relay, *answer[end : end + number])
        end += number
        for name in acts & readers.keys():
            found[name] += readers[name].take()
        if "begin" in acts:  # a client comes while the answer does
            late = relay.reader()
            assert spelled(late.take()) == spelled(answer[:end])
            assert late.take() == [], "it has all of them"
            late.close()
    assert found == {"early": answer, "slow": answer}, "what a reader has not taken is not joined"
    assert spelled(relay.events) == spelled(answer)
    assert relay.size == sum(len(getattr(event, "text", "")) for event in answer)


@pytest.mark.parametrize("kind", [TextDelta, ToolArguments])
@pytest.mark.parametrize("is_read", [True, False], ids=["read", "in the background"])
def test_a_long_answer_takes_few_events_once_its_readers_have_it(kind, is_read):
    relay, words = Relay(), 20_000
    reader = relay.reader() if is_read else None
    for number in range(words):
        put(relay, kind(f" {number:04}"))
        if reader is not None:
            reader.take()
    pieces = [event for event in relay.events if isinstance(event, kind)]
    longest = max(len(piece.text) for piece in pieces)
    assert len(relay.events) <= relay.size / PIECE_CHARS + JOINED_AT + 1
    assert longest < 2 * PIECE_CHARS, "what is joined again and again is short"


def test_what_the_slowest_reader_has_not_taken_stays_as_it_came():
    relay = Relay()
    quick, slow = relay.reader(), relay.reader()
    words = [TextDelta(f" {number}") for number in range(100)]
    for word in words:
        put(relay, word)
        quick.take()
    assert slow.take() == words
    quick.close()
    put(relay, TextDelta("."))
    assert len(relay.events) == 2, "now it has taken all but the last"
    assert slow.take() == [TextDelta(".")]
