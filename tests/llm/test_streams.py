"""A streamed answer: handed on while it comes, whole only with its stop reason, asked for once."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace

import pytest

from generation import errors
from generation.events import Start
from generation.llm.providers import following
from generation.records import Usage
from tests.support.dialects import OpenAIDialect, slugs
from tests.support.provider import Ending, hangs, says, streams
from tests.support.waiting import HANG_S


async def test_each_piece_is_handed_on_when_it_comes(streaming, server, dialect):
    go = [asyncio.Event(), asyncio.Event()]
    pieces = dialect.stream("Hel", "lo.")
    at = pieces.index(dialect.delta("lo."))
    server.behave = streams(*pieces[:at], go[0], *pieces[at : at + 1], go[1], *pieces[at + 1 :])
    async with streaming() as call:
        _, task = call.start()
        await call.until_text("Hel")
        assert call.relay.first_at is not None
        assert call.relay.events[0] == Start(dialect.model, dialect.name)
        go[0].set()
        await call.until_text("Hello.")
        assert not task.done(), "it is not whole yet"
        go[1].set()
        outcome = await task
    reply = outcome.require_reply()
    assert (reply.text, reply.usage, reply.stop_reason) == ("Hello.", Usage(10, 20), "end_turn")
    assert (reply.raw_reply, reply.blocks) == ("", ())
    assert (outcome.model, slugs(outcome.attempts)) == (dialect.model, [""])
    assert server.requests[0].json["stream"] is True


async def test_whole_answers_to_a_streamed_request_are_streams_of_one(streaming, server, dialect):
    server.behave = says(200, dialect.answer())
    async with streaming() as call:
        reply = (await call.outcome()).require_reply()
    assert (reply.text, call.text, reply.usage) == ("Hello.", "Hello.", Usage(10, 20))


async def test_a_stream_that_is_compressed_unasked_is_an_answer(streaming, server, dialect):
    server.behave = streams(gzip.compress(b"".join(dialect.stream("Hel", "lo."))))
    async with streaming() as call:
        reply = (await call.outcome()).require_reply()
    assert (reply.text, call.text) == ("Hello.", "Hello.")


@pytest.mark.parametrize("size", [1, 7])
async def test_an_answer_that_comes_in_shreds_is_the_same(streaming, server, dialect, size):
    body = b"".join(dialect.stream("Grüße ", "an alle 🙂."))
    server.behave = streams(*(body[at : at + size] for at in range(0, len(body), size)))
    async with streaming() as call:
        reply = (await call.outcome()).require_reply()
    assert (reply.text, reply.usage) == ("Grüße an alle 🙂.", Usage(10, 20))


@pytest.mark.parametrize(
    "ending", [Ending.TORN, Ending.RESET, None], ids=["torn", "reset", "clean"]
)
async def test_an_answer_without_its_stop_reason_is_half_of_one(streaming, server, dialect, ending):
    pieces = dialect.stream("Half an", " answer")
    half = pieces[: pieces.index(dialect.delta(" answer"))]
    server.behave = streams(*half, *([ending] if ending else []))
    async with streaming(LLM_FALLBACKS=f"{dialect.name}:other") as call:
        outcome = await call.outcome()
    assert type(outcome.error) is errors.StreamBroken
    assert slugs(outcome.attempts) == ["stream-broken"], "a reader had seen its beginning"
    assert (outcome.reply.text, call.text) == ("Half an", "Half an")
    usage = outcome.reply.usage
    assert usage.is_estimated
    assert usage.input_tokens > 0
    assert usage.output_tokens == 2


async def test_the_end_of_a_stream_alone_does_not_make_an_answer_whole(streaming, server, dialect):
    pieces = dialect.stream("Half an")
    stop = 3 if dialect.name == "openai" else 2
    server.behave = streams(*pieces[:-stop], pieces[-1])
    async with streaming() as call:
        outcome = await call.outcome()
    assert type(outcome.error) is errors.StreamBroken


async def test_what_fails_before_the_first_word_is_tried_again(streaming, server, dialect):
    opening, *_ = dialect.stream("Hello.")
    whole = streams(*dialect.stream("Hello."))
    first_error = streams(dialect.error_event("overloaded"))
    async with streaming() as call:
        for failure in (
            says(529, dialect.error("overloaded"), retry_after="0"),
            first_error,
            streams(opening, dialect.error_event("overloaded")),
            streams(opening, Ending.TORN),
            streams(opening),
            streams(),
            streams(Ending.RESET),
        ):
            server.script = [failure, whole]
            outcome = await call.outcome()
            assert outcome.require_reply().text == "Hello.", outcome
            assert (len(outcome.attempts), call.text) == (2, "Hello.")


async def test_what_fails_before_the_first_word_falls_back(streaming, server, dialect):
    server.script = [streams(dialect.error_event("overloaded")), streams(*dialect.stream("Hi."))]
    async with streaming(LLM_FALLBACKS=f"{dialect.name}:other") as call:
        outcome = await call.outcome()
    assert outcome.require_reply().text == "Hi."
    assert [a.model for a in outcome.attempts] == [dialect.model, "other"]


async def test_an_error_in_the_middle_ends_the_answer(streaming, server, dialect):
    pieces = dialect.stream("Half", "")
    half = pieces[: pieces.index(dialect.delta(""))]
    server.behave = streams(*half, dialect.error_event("overloaded"))
    async with streaming(LLM_FALLBACKS=f"{dialect.name}:other") as call:
        outcome = await call.outcome()
    assert slugs(outcome.attempts) == ["llm-overloaded"]
    assert (outcome.reply.text, outcome.reply.usage.is_estimated) == ("Half", True)
    if dialect.name == "anthropic":
        assert outcome.reply.cost_usd, "it was billed all the same"


async def test_an_error_after_the_stop_reason_is_none(streaming, server, dialect):
    pieces = dialect.stream("Hello.")
    server.behave = streams(*pieces[:-1], dialect.error_event("overloaded"), Ending.TORN)
    async with streaming() as call:
        assert (await call.outcome()).require_reply().text == "Hello."


async def test_a_silence_in_the_middle_is_an_end(streaming, server, dialect):
    pieces = dialect.stream("Half", "")
    half = pieces[: pieces.index(dialect.delta(""))]
    server.behave = streams(*half, Ending.SILENCE)
    async with streaming(LLM_STREAM_IDLE_TIMEOUT=0.2) as call:
        outcome = await call.outcome()
        await server.until(lambda: server.connected == 0, "closing")
    assert type(outcome.error) is errors.StreamIdle
    assert outcome.error.row_status == "timed_out"
    assert outcome.reply.text == "Half"


async def test_an_endless_answer_is_ended(streaming, server, dialect):
    opening, *_ = dialect.stream()
    if dialect.name == "anthropic":
        opening += dialect.stream()[1]

    async def goes_on(exchange):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        await exchange.send(head + opening + 2 * dialect.delta("on and "))
        while True:
            await exchange.send(dialect.delta("on and "))
            await asyncio.sleep(0.01)

    server.behave = goes_on
    async with streaming(LLM_STREAM_TIMEOUT=1) as call:
        outcome = await call.outcome()
        await server.until(lambda: server.connected == 0, "closing")
    assert type(outcome.error) is errors.StreamTooLong
    assert f"{dialect.name} did not end" in str(outcome.error)
    assert outcome.reply.text.startswith("on and on and ")


async def test_an_answer_that_its_reader_holds_up_is_not_blamed_on_the_provider(
    streaming, server, dialect
):
    pieces = dialect.stream("x" * 70_000, "")
    server.behave = streams(*pieces[: pieces.index(dialect.delta(""))], Ending.SILENCE)
    async with streaming(LLM_STREAM_TIMEOUT=0.5) as call:
        _, task = call.start()
        _reader = call.relay.reader()  # it takes nothing
        outcome = await asyncio.wait_for(task, HANG_S)
    assert type(outcome.error) is errors.StreamTooLong
    assert "the client did not read" in str(outcome.error)


async def test_a_first_word_that_does_not_come_in_time_is_a_timeout_as_ever(
    streaming, server, dialect
):
    async with streaming(LLM_ATTEMPT_TIMEOUT=0.2, LLM_MAX_ATTEMPTS=1) as call:
        for silence in (hangs, streams(Ending.SILENCE), streams(b": hello\n\n", Ending.SILENCE)):
            server.behave = silence
            outcome = await call.outcome()
            assert slugs(outcome.attempts) == ["llm-timed-out"]
            assert outcome.reply is None


async def test_after_the_first_event_signs_of_life_are_waited_for(streaming, server, dialect):
    """A model that thinks in silence has been charged for, and its server says that it lives."""
    opening, *rest = dialect.stream("Hello.")

    async def thinks(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + opening)
        for _ in range(10):
            await asyncio.sleep(0.05)
            await exchange.send(b": thinking\n\n")
        await exchange.send(b"".join(rest))
        exchange.close()

    server.behave = thinks
    async with streaming(LLM_ATTEMPT_TIMEOUT=0.3, LLM_MAX_ATTEMPTS=1) as call:
        assert (await call.outcome()).require_reply().text == "Hello."


async def test_a_line_without_an_end_fails_early(streaming, server, dialect):
    sent = 0

    async def behave(exchange):
        nonlocal sent
        await exchange.send(
            b'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {"x": "'
        )
        for _ in range(1600):  # 100 MB
            await exchange.send(b"x" * 65_536)
            if exchange.is_closed:
                break
            sent += 65_536

    server.behave = behave
    async with streaming(LLM_MAX_ATTEMPTS=1, LLM_MAX_REPLY_BYTES=1_000_000) as call:
        outcome = await call.outcome()
        await server.until(lambda: server.connected == 0, "closing")
    assert type(outcome.error) is errors.LLMBadReply
    assert sent < 20_000_000, "it was read on"


async def test_ten_megabytes_of_blank_lines_delay_an_answer_no_longer_than_their_way(
    streaming, server, dialect
):
    server.behave = streams(b"\n" * 10_000_000, *dialect.stream("Hello."))
    async with streaming(LLM_TIMEOUT=12, LLM_MAX_ATTEMPTS=1) as call:
        assert (await call.outcome()).require_reply().text == "Hello."


@pytest.mark.parametrize("size", [1, 1000])
async def test_an_answer_beyond_the_bound_is_an_error(streaming, server, dialect, size):
    pieces = dialect.stream(*["x" * size] * (2000 // size + 400))
    server.behave = streams(*pieces)
    async with streaming(LLM_MAX_REPLY_BYTES=10_000) as call:
        outcome = await call.outcome()
    assert type(outcome.error) is errors.LLMBadReply
    assert len(outcome.reply.text) < 15_000


@pytest.mark.parametrize("dialect", [OpenAIDialect()], ids=["openai"])
async def test_usage_may_follow_the_stop_without_a_last_blank_line(streaming, server, dialect):
    *pieces, usage, _ = dialect.stream("Hello.")
    server.behave = streams(*pieces, usage.rstrip())
    async with streaming() as call:
        assert (await call.outcome()).require_reply().usage == Usage(10, 20)


async def test_leaving_closes_the_connection_and_keeps_what_came(streaming, server, dialect):
    pieces = dialect.stream("Half", "")
    half = pieces[: pieces.index(dialect.delta(""))]
    async with streaming() as call:
        for behave, text in ((hangs, None), (streams(*half, Ending.SILENCE), "Half")):
            server.behave = behave
            server.requests.clear()
            context, task = call.start()
            await server.until(lambda: server.requests, "the request")
            if text:
                await call.until_text(text)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.until(lambda: server.connected == 0, "closing")
            partial = context.partial()
            assert (partial and partial.text) == text
            assert slugs(context.attempts) == ["cancelled"]
            assert call.llm.in_flight == 0
    assert partial.usage.is_estimated
    if dialect.name == "anthropic":
        assert (partial.usage.input_tokens, partial.usage.output_tokens) == (10, 1)
        assert partial.cost_usd


async def test_a_stream_keeps_its_place_until_its_end(streaming, server, dialect):
    go = asyncio.Event()
    pieces = dialect.stream("Hel", "lo.")
    at = pieces.index(dialect.delta("lo."))
    server.behave = streams(*pieces[:at], go, *pieces[at:])
    async with streaming(LLM_MAX_CONCURRENCY=1, LLM_QUEUE_TIMEOUT=0.05) as call:
        _, task = call.start()
        await call.until_text("Hel")
        assert type((await call.llm.complete(call.prompt)).error) is errors.LLMBusy
        go.set()
        assert (await task).reply.text == "Hello."
        assert (await call.outcome()).reply.text == "Hello."


async def test_a_slow_reader_is_no_silence_of_the_provider(streaming, server, dialect):
    """While a reader lags, the provider is not read, so nothing can come from it."""
    server.behave = streams(*dialect.stream("x" * 70_000, "y" * 70_000, "z"))
    async with streaming(LLM_STREAM_IDLE_TIMEOUT=0.2) as call:
        _, task = call.start()
        reader = call.relay.reader()
        await reader.read()
        await asyncio.wait([task], timeout=0.6)
        assert not task.done()
        while not task.done():
            async with asyncio.timeout(HANG_S):
                reading = asyncio.ensure_future(reader.read())
                await asyncio.wait([reading, task], return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
        assert len((await task).require_reply().text) == 140_001


async def test_a_connection_is_used_again_after_a_stream(streaming, server, dialect, monkeypatch):
    monkeypatch.setattr(following, "_END_TIMEOUT_S", 2.0)  # a busy machine may be late with the end
    server.behave = streams(*dialect.stream("Hello."))
    async with streaming() as call:
        for _ in range(5):
            assert (await call.outcome()).reply.text == "Hello."
    # The transport's own thread puts a connection back, now and then a moment after the next call.
    assert server.accepted <= 3, "five streams took five connections"


async def test_a_stream_whose_end_is_left_open_is_whole_all_the_same(streaming, server, dialect):
    server.behave = streams(*dialect.stream("Hello."), Ending.SILENCE)
    async with streaming(LLM_STREAM_IDLE_TIMEOUT=0.05) as call:
        async with asyncio.timeout(HANG_S):
            reply = (await call.outcome()).require_reply()
    assert (reply.text, reply.usage) == ("Hello.", Usage(10, 20))


async def test_a_refusal_is_the_callers(streaming, server, dialect):
    stop = "refusal" if dialect.name == "anthropic" else "content_filter"
    async with streaming() as call:
        for texts, committed in (((), False), (("I",), True)):
            server.behave = streams(*dialect.stream(*texts, stop=stop))
            outcome = await call.outcome()
            assert type(outcome.error) is errors.LLMRefused
            assert (call.relay.first_at is not None) is committed


async def test_an_answer_that_is_cut_off_before_its_first_word_is_an_error(
    streaming, server, dialect
):
    stop = "max_tokens" if dialect.name == "anthropic" else "length"
    server.behave = streams(*dialect.stream(stop=stop))
    async with streaming() as call:
        outcome = await call.outcome()
    assert type(outcome.error) is errors.LLMRefused
    assert outcome.reply.usage == Usage(10, 20)


async def test_a_stream_tells_nothing_about_an_outage_once_it_answers(streaming, server, dialect):
    pieces = dialect.stream("Half", "")
    half = pieces[: pieces.index(dialect.delta(""))]
    server.behave = streams(*half, Ending.TORN)
    async with streaming() as call:
        for _ in range(30):
            assert type((await call.outcome()).error) is errors.StreamBroken
        server.behave = streams(*dialect.stream("Hello."))
        assert (await call.outcome()).reply.text == "Hello."


@pytest.mark.parametrize("model", ["", None])
async def test_the_model_that_was_asked_is_named_where_the_answer_names_none(
    streaming, server, dialect, model
):
    body = b"".join(dialect.stream("Hi.")).replace(
        f'"model": "{dialect.model}"'.encode(), b'"model": ""' if model == "" else b'"model": null'
    )
    server.behave = streams(body)
    async with streaming() as call:
        call.prompt = replace(call.prompt, model="")
        outcome = await call.outcome()
    assert outcome.model == dialect.model
    assert call.relay.events[0] == Start(dialect.model, dialect.name)
