import asyncio
import contextlib
import contextvars
import gc

import pytest

from generation.database.batching import Batcher, Bounds
from generation.errors import DatabaseUnavailable, RowRefused
from tests.support.waiting import HANG_S

BOUNDS = Bounds(batch_rows=10, batch_bytes=100, queue_rows=25, queue_bytes=1000)


class Statement:
    """A flush that notes its batches, and waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.refused: set = set()
        self.error: Exception | None = None

    async def __call__(self, items):
        self.batches.append(list(items))
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        if self.refused & set(items):
            raise RowRefused("a row is at fault")
        return [f"result of {item}" for item in items]


@contextlib.asynccontextmanager
async def running(statement, bounds=BOUNDS, **options):
    batcher = Batcher("test", statement, bounds, **{"weigh": lambda _item: 1, **options})
    task = asyncio.create_task(batcher.run(), context=contextvars.Context())
    try:
        yield batcher
    finally:
        batcher.close()
        statement.may_end.set()
        async with asyncio.timeout(HANG_S):
            await task


async def test_what_arrives_during_a_flush_leaves_together_in_the_next():
    statement = Statement()
    async with running(statement) as batcher:
        statement.may_end.clear()
        first = batcher.submit("a")
        while not statement.batches:
            await asyncio.sleep(0)
        rest = [batcher.submit(item) for item in "bcd"]
        statement.may_end.set()
        assert await first == "result of a"
        assert await asyncio.gather(*rest) == [f"result of {item}" for item in "bcd"]
    assert statement.batches == [["a"], ["b", "c", "d"]]


async def test_batches_are_capped_in_rows():
    statement = Statement()
    async with running(statement) as batcher:
        await asyncio.gather(*(batcher.submit(number) for number in range(25)))
    assert [len(batch) for batch in statement.batches] == [10, 10, 5]


async def test_batches_are_capped_in_bytes_but_a_large_row_still_goes_alone():
    statement = Statement()
    async with running(statement, weigh=int) as batcher:
        await asyncio.gather(*(batcher.submit(size) for size in (60, 60, 500, 30, 30)))
    assert statement.batches == [[60], [60], [500], [30, 30]]


async def test_a_full_queue_refuses_at_once():
    batcher = Batcher("test", Statement(), BOUNDS, weigh=int)
    for number in range(25):
        batcher.submit(number)
    with pytest.raises(DatabaseUnavailable, match="full"):
        batcher.submit(1)
    heavy = Batcher("test", Statement(), BOUNDS, weigh=int)
    heavy.submit(900)
    with pytest.raises(DatabaseUnavailable, match="full"):
        heavy.submit(200)


async def test_a_refused_row_does_not_fail_its_neighbours():
    statement = Statement()
    statement.refused = {3, 7}
    async with running(statement) as batcher:
        outcomes = await asyncio.gather(
            *(batcher.submit(number) for number in range(10)), return_exceptions=True
        )
    for number, outcome in enumerate(outcomes):
        if number in statement.refused:
            assert isinstance(outcome, RowRefused)
        else:
            assert outcome == f"result of {number}"


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), ZeroDivisionError()])
async def test_a_failed_flush_fails_its_callers_and_the_next_one_works(error):
    statement = Statement()
    statement.error = error
    async with running(statement) as batcher:
        outcomes = await asyncio.gather(
            batcher.submit("a"), batcher.submit("b"), return_exceptions=True
        )
        assert list(outcomes) == [error, error]
        statement.error = None
        assert await batcher.submit("c") == "result of c"


async def test_a_failure_that_nobody_waits_for_any_more_is_not_logged_as_a_fault():
    unhandled = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: unhandled.append(context)
    )
    statement = Statement()
    statement.error = DatabaseUnavailable("the database is away")
    async with running(statement) as batcher:
        statement.may_end.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.shield(batcher.submit("a"))
    del statement, batcher  # the error knows its frames, and they the future
    gc.collect()
    assert unhandled == []


async def test_an_item_whose_caller_has_given_up_is_left_out_before_its_flush():
    statement = Statement()
    async with running(statement) as batcher:
        gone = batcher.submit("gone")
        stays = batcher.submit("stays")
        gone.cancel()
        await stays
    assert statement.batches == [["stays"]]


async def test_closing_flushes_what_is_queued():
    statement = Statement()
    async with running(statement) as batcher:
        futures = [batcher.submit(number) for number in range(12)]
    assert all(future.done() and future.exception() is None for future in futures)


async def test_the_queue_is_empty_in_bytes_when_it_is_in_rows():
    statement = Statement()
    async with running(statement, weigh=lambda _item: 999) as batcher:
        for _ in range(50):
            await batcher.submit("x")
        assert len(batcher) == 0


async def test_items_that_may_linger_leave_together_and_at_once_on_closing():
    statement = Statement()
    async with running(statement, linger_s=60) as batcher:
        for number in range(3):
            batcher.submit(number)
            await asyncio.sleep(0)
        assert statement.batches == []
    assert statement.batches == [[0, 1, 2]]
