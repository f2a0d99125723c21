"""`manage.py loadtest --stream`: what it takes for a whole stream, and what it measures."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError

from generation.loadtest import report, verdict
from generation.loadtest.run import Outcome
from generation.loadtest.streams import TORN, Deltas, Reading
from tests.loadtest.support import POOL, loadtest, plan, result

START = b'id: 0\nevent: start\ndata: {"id":"1","model":"m","provider":"simulated"}\n\n'
WORD = b'id: 5\nevent: delta\ndata: {"text":"word "}\n\n'
DONE = b'id: 5\nevent: done\ndata: {"result":"word ","provider":"simulated"}\n\n'
DRAINED = (
    b'id: 5\nevent: error\ndata: {"type":"urn:staccato:problem:drained","status":503,'
    b'"detail":"it ends"}\n\n'
)
WHOLE = START + WORD + WORD + DONE


# --- one stream -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, len(WHOLE)])
def test_events_are_read_wherever_the_bytes_are_split(size):
    deltas = Deltas()
    reading = Reading(deltas, sent=1.0)
    for at in range(0, len(WHOLE), size):
        reading.feed(WHOLE[at : at + size], 3.0)
    assert reading.end == "done"
    assert b'"result"' in reading.data
    assert reading.first == 2.0
    assert deltas.total(1.0).events == 2


def test_comments_are_no_events_and_an_event_in_a_text_is_none():
    reading = Reading(Deltas(), sent=0.0)
    reading.feed(b": keep-alive\n", 1.0)
    reading.feed(b'id: 1\nevent: delta\ndata: {"text":"\\n\\nevent: done\\n\\n"}\n\n', 2.0)
    assert reading.first == 2.0
    assert not reading.end


def test_gaps_are_between_the_contents_of_one_stream():
    deltas = Deltas()
    one, two = Reading(deltas, sent=0.0), Reading(deltas, sent=0.0)
    for number in range(100):
        one.feed(WORD, 1.0 + 0.01 * number)
    two.feed(WORD, 1.5)
    two.feed(WORD, 4.0)
    tempo = deltas.recent(2.0)
    assert tempo.events == 102
    assert tempo.per_s == 51
    assert tempo.gap_p50 == pytest.approx(0.01)
    assert tempo.longest_gap == pytest.approx(2.5)
    assert deltas.recent(1.0).events == 0
    assert deltas.total(1.0).events == 102


# --- verdict and report -----------------------------------------------------------------------


def streamed(*outcomes: Outcome):
    deltas = Deltas()
    for _ in range(20):
        deltas.add(0.05)
    found = result(*outcomes)
    found.tempo = deltas.recent(2.0)
    found.samples.append(type(found.samples[0])(1.0, 500, POOL, found.tempo))
    return found


def test_the_verdict_has_the_first_token_the_gaps_and_the_pool():
    found = verdict.judge(plan(is_streamed=True), streamed(Outcome(1.0, 0.9, "", 0.25)))
    assert found.headline.startswith("PASSED: 1 of 1 streams read to their end")
    said = " ".join(found.sentences)
    assert "First token: median 0.250 s" in said
    assert "Gaps between events: median 50.0 ms" in said
    assert "20 events, 10 a second" in said
    assert "at most 2 checked out at once" in said


def test_the_progress_shows_open_streams():
    found = streamed()
    line = verdict.progress(plan(is_streamed=True), found, found.samples[-1])
    assert "open streams   500" in line
    assert "10/s" in line


def test_the_report_draws_first_tokens_gaps_and_events():
    a_plan, a_result = plan(is_streamed=True), streamed(Outcome(1.0, 0.9, "", 0.25))
    html = report.render(a_plan, a_result, verdict.judge(a_plan, a_result), "2026-01-02")
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Streams open",
        "Database connections",
        "Time to first token in seconds",
        "Gaps between events in seconds",
        "Events a second",
    ]
    assert "No data" not in html


# --- against a server -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def streaming(*answers: bytes):
    """Answers one stream each, the last one to all that follow, and closes the connection."""
    left = list(answers)

    async def talk(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                body = await reader.readuntil(b"}")
                assert b'"stream": true' in body
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                    b"connection: close\r\n\r\n" + (left.pop(0) if left[1:] else left[0])
                )
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "fault"), [(WHOLE, ""), (START + WORD, TORN), (START + WORD + DRAINED, "drained")]
)
async def test_only_a_stream_that_ends_with_done_passes(answer, fault):
    async with streaming(WHOLE, answer) as url:
        status, said = await sync_to_async(loadtest)(
            "--url", url, "--stream", "--requests", "2", "--concurrency", "1", "--report", ""
        )
    assert bool(status) is bool(fault), said
    assert (f"2 × {fault}." in said) is bool(fault), said


async def test_a_first_stream_that_is_torn_ends_the_test():
    async with streaming(START + WORD) as url:
        with pytest.raises(CommandError, match="not with a whole stream"):
            await sync_to_async(loadtest)("--url", url, "--stream", "--report", "")


def test_a_body_that_is_no_object_cant_ask_for_a_stream():
    with pytest.raises(CommandError, match="a JSON object"):
        loadtest("--report", "", "--stream", "--body", "[]")


async def test_it_reads_a_services_streams(serve, sql):
    async with serve(LLM_PROVIDER="simulated", LLM_SIMULATED_LATENCY="0.2") as service:
        status, said = await sync_to_async(loadtest)(
            "--url", f"http://127.0.0.1:{service.port}", "--concurrency", "20", "--stream",
            "--requests", "40", "--report", "",
        )  # fmt: skip
    assert status == 0, said
    assert "PASSED: 40 of 40 streams read to their end" in said
    assert "First token" in said
    assert "checked out at once" in said
    assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 41
