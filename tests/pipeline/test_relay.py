"""A stream's events reach every reader, and no reader makes the process keep more than it may."""

from __future__ import annotations

import asyncio

import pytest

from generation.events import TextDelta
from generation.pipeline.relay import LAG_CHARS, Relay
from tests.support.waiting import HANG_S

HALF = TextDelta("x" * (LAG_CHARS // 2 + 1))


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
        relay.put([event])
    late = asyncio.create_task(all_of(relay.reader()))
    await asyncio.sleep(0)
    relay.put(events[5:])
    relay.close()
    assert await early == await late == events
    assert await all_of(relay.reader()) == events, "also one that comes after the end"
    assert relay.size == 10


async def test_the_writer_waits_for_the_slowest_reader_and_no_longer():
    relay = Relay()
    quick, slow = relay.reader(), relay.reader()
    relay.put([HALF])
    relay.put([HALF])
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


async def test_a_reader_that_leaves_holds_nobody_up():
    relay = Relay()
    gone = relay.reader()
    relay.put([HALF])
    relay.put([HALF])
    writing = asyncio.create_task(relay.room())
    await asyncio.sleep(0)
    gone.close()
    await asyncio.wait_for(writing, HANG_S)
    assert not relay.readers


async def test_without_readers_the_writer_waits_for_nobody():
    relay = Relay()
    for _ in range(5):
        relay.put([HALF])
        await asyncio.wait_for(relay.room(), HANG_S)


async def test_a_reader_that_is_cancelled_while_it_waits_may_read_on():
    relay = Relay()
    reader = relay.reader()
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    relay.put([TextDelta("on")])
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
    relay.put([TextDelta("0")])
    assert not taken, "nobody waits in read(), so the task may be sending what came before"
    assert await reader.read() == [TextDelta("0")]

    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    relay.put([HALF])
    relay.put([HALF, TextDelta("1")])
    assert taken == [HALF, HALF, TextDelta("1")], "not a turn of the loop later"
    assert relay.has_room, "what is taken at once holds nobody up"
    is_ready = False
    relay.put([TextDelta("2")])
    relay.put([TextDelta("3")])
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
    relay.put([HALF])
    with pytest.raises(ZeroDivisionError):
        await reading
    assert await other.read() == [HALF]
