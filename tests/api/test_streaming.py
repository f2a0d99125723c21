"""A streamed answer, from a provider on a real socket to a client on another."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from generation.asgi.uvicorn_writing import Sink
from generation.llm.transcript import CHARS_PER_TOKEN
from generation.runtime.process import current
from tests.support.http import Wire, request
from tests.support.locks import locked, until_blocked
from tests.support.streams import Author, Follower, kinds_of, lazy_client, text_of

ASK = {"input": "Why is the sky blue?", "stream": True}
KEY = [("Idempotency-Key", "a-key")]


@pytest.fixture
async def author(llm):
    """Writes what the LLM answers to the first request; a further one would be answered whole."""
    author = Author()
    llm.script.append(author)
    return author


async def the_row(sql):
    """The one row of the one request, once nothing is in flight."""
    calls = current().admission.calls.values()
    await asyncio.gather(*(call.task for call in calls), return_exceptions=True)
    rows = await sql.fetch(
        "SELECT * FROM generation_generationlog JOIN generation_generationbody USING (id)"
    )
    assert len(rows) == 1, f"one request leaves one row, not {len(rows)}"
    return rows[0]


async def follow(service, author, *texts: str, headers=()) -> Follower:
    """Ask for a stream, and let the LLM write these texts."""
    asking = asyncio.ensure_future(Follower.begin(service.port, payload=ASK, headers=headers))
    await author.begin()
    for text in texts:
        await author.write(text)
    return await asking


async def test_a_word_arrives_while_the_next_is_not_written_yet(here, author, monkeypatch):
    at_once = []
    write = Sink.write
    monkeypatch.setattr(
        Sink, "write", lambda self, events: (at_once.append(events), write(self, events))
    )
    async with here() as service:
        client = await follow(service, author, "Because")
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in client.headers
        start, word = await client.event(), await client.event()
        assert (start.kind, word.kind, word.data) == ("start", "delta", {"text": "Because"})
        assert start.data["provider"] == "anthropic"
        await author.write(" air")
        assert (await client.event()).data == {"text": " air"}
        assert len(at_once) == 1, (
            "it leaves in the step that brings it; the first waits for the head"
        )
        await author.finish()
        usage, done = await client.rest()
        assert usage.data == {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
        assert done.data["result"] == "Because air"
        assert done.data["id"] == start.data["id"]
        assert service.outcomes == {"succeeded": 1}


@pytest.mark.parametrize("is_early", [True, False], ids=["a status", "an event"])
async def test_an_error_before_the_first_content_is_a_problem_with_its_own_status(
    here, author, sql, is_early
):
    async with here(LLM_MAX_ATTEMPTS="1") as service:
        asking = asyncio.ensure_future(request(service.port, "POST", "/api/v1/generate/1", ASK))
        error = {"type": "overloaded_error", "message": "try later"}
        if is_early:
            await author.refuse(529, {"type": "error", "error": error})
        else:
            await author.begin()
            await author.send("error", error=error)
            await author.close()
        answer = await asking
        assert answer.status == 503
        assert answer.json()["type"] == "urn:staccato:problem:llm-overloaded"
        assert "retry-after" in answer.headers
        assert (await the_row(sql))["error_type"] == "llm-overloaded"
        assert service.outcomes == {"llm-overloaded": 1}


async def test_the_last_events_leave_when_the_row_is_committed_and_not_before(
    here, author, sql, database_url
):
    async with here() as service:
        client = await follow(service, author, "Because")
        start = await client.event()
        await client.event()
        async with locked(database_url, "generation_generationlog"):
            await author.finish()
            await until_blocked(sql, "WITH rows AS")
            assert not client.has_more, "an answer must not look complete before it is safe"
        assert (await client.event()).kind == "usage"
        row = await sql.fetchrow("SELECT id, status FROM generation_generationlog")
        assert (str(row["id"]), row["status"]) == (start.data["id"], "succeeded")
        assert kinds_of(await client.rest()) == ["done"]


async def test_a_provider_that_breaks_off_ends_the_stream_with_an_error(here, author, sql):
    async with here() as service:
        client = await follow(service, author, "Because")
        await author.close()
        events = await client.rest()
        assert kinds_of(events) == ["start", "error"]
        assert events[-1].data["type"] == "urn:staccato:problem:stream-broken"
        row = await the_row(sql)
        assert (row["status"], row["error_type"]) == ("failed", "stream-broken")
        assert row["result"] == "Because"
        assert service.outcomes == {"stream-broken": 1}


@pytest.mark.parametrize("words", [[], ["Because"]], ids=["before a word", "after a word"])
async def test_a_client_that_leaves_hangs_up_on_the_llm(here, author, llm, sql, words, caplog):
    async with here() as service:
        if words:
            await (await follow(service, author, *words)).leave()
        else:
            body = b'{"stream": true}'
            wire = await Wire.begin(service.port, "POST", "/api/v1/generate/1", body)
            await author.begin()
            await wire.leave()
        await llm.until(lambda: llm.hung_up == 1, "the upstream connection's end")
        row = await the_row(sql)
        assert (row["status"], row["error_type"]) == ("cancelled", "client-left")
        assert row["result"] == "".join(words)
        assert service.outcomes == {"client-left": 1}
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_answer_with_a_key_is_cancelled_where_that_is_set(here, author, llm, sql):
    async with here(ON_DISCONNECT="cancel") as service:
        await (await follow(service, author, "Because", headers=KEY)).leave()
        await llm.until(lambda: llm.hung_up == 1, "the upstream connection's end")
        assert (await the_row(sql))["error_type"] == "client-left"


@pytest.mark.parametrize("words", [[], ["Because"]], ids=["before a word", "after a word"])
async def test_an_answer_with_a_key_is_finished_for_its_clients_return(here, author, sql, words):
    async with here() as service:
        if words:
            await (await follow(service, author, *words, headers=KEY)).leave()
        else:
            body = b'{"input": "Why is the sky blue?", "stream": true}'
            wire = await Wire.begin(service.port, "POST", "/api/v1/generate/1", body, KEY)
            await author.begin()
            await wire.leave()
        await author.write(" air")
        await author.finish()
        row = await the_row(sql)
        assert (row["status"], row["result"]) == ("succeeded", "".join([*words, " air"]))
        again = await Follower.begin(service.port, payload=ASK, headers=KEY)
        assert again.headers["idempotency-replayed"] == "true"
        events = await again.rest()
        assert kinds_of(events) == ["start", "usage", "done"]
        assert text_of(events) == row["result"]
        assert events[0].data["id"] == events[-1].data["id"] == str(row["id"])


async def test_the_same_request_under_the_same_key_joins_the_stream(here, author, llm):
    async with here() as service:
        first = await follow(service, author, "Because", headers=KEY)
        second = await Follower.begin(service.port, payload=ASK, headers=KEY)
        whole = asyncio.ensure_future(
            request(service.port, "POST", "/api/v1/generate/1", ASK | {"stream": False}, KEY)
        )
        await first.leave()  # the others go on
        await author.write(" air")
        await author.finish()
        events = await second.rest()
        assert text_of(events) == "Because air"
        assert kinds_of(events) == ["start", "usage", "done"]
        assert (await whole).json() == events[-1].data
        assert llm.calls == 1
        other = ASK | {"input": "Why is grass green?"}
        refused = await request(service.port, "POST", "/api/v1/generate/1", other, KEY)
        assert refused.json()["type"].endswith("idempotency-key-reused")


async def test_nobody_joins_a_stream_that_is_given_up(here, author, llm, sql, database_url):
    """A client that asks again while the row is written is not answered that it has left."""
    async with here(ON_DISCONNECT="cancel") as service:
        first = await follow(service, author, "Because", headers=KEY)
        async with locked(database_url, "generation_generationlog"):
            await first.leave()
            await until_blocked(sql, "WITH rows AS")
            again = await request(service.port, "POST", "/api/v1/generate/1", ASK, KEY)
        assert (again.status, again.headers["retry-after"]) == (409, "1")
        assert again.json()["type"] == "urn:staccato:problem:idempotency-key-in-use"


async def test_a_client_that_reads_nothing_stops_the_llm_and_has_left_after_a_while(
    serve, author, llm, sql
):
    """What fits into the sockets' buffers is sent; the LLM is not read beyond that. The kernel
    alone would take 4 MB, and a client would not be missed before."""
    limits = {"STACCATO_SEND_TIMEOUT": "1", "LLM_MAX_REPLY_BYTES": "1000000000"}
    async with serve(**limits) as service, lazy_client(service.port, ASK):
        await author.begin()
        before = service.memory()

        async def write() -> None:
            while True:
                await author.write("x" * 50_000)

        writing = asyncio.ensure_future(write())
        await llm.until(lambda: llm.hung_up == 1, "the upstream connection's end")
        writing.cancel()
        await service.until_pool(lambda now: now["requests_in_flight"] == 0, "the row")
        status, error, tokens = await sql.fetchrow(
            "SELECT status, error_type, output_tokens FROM generation_generationlog"
        )
        assert (status, error) == ("cancelled", "client-left")
        assert tokens * CHARS_PER_TOKEN < 2_000_000, "of the answer was read for nobody"
        assert author.written < 64_000_000
        assert service.memory() - before < 64_000_000
        assert await service.metric('staccato_requests_total{outcome="client-left"}') == 1
        assert "ERROR" not in service.log
        assert "Traceback" not in service.log


async def test_a_client_that_reads_a_little_now_and_then_has_left_too(here, author, llm, sql):
    limits = {"SEND_TIMEOUT": "0.5", "LLM_MAX_REPLY_BYTES": "1000000000"}
    async with here(**limits) as service, lazy_client(service.port, ASK) as client:
        loop = asyncio.get_running_loop()
        received = bytearray()

        async def write() -> None:
            await author.begin()
            while True:
                await author.write("x" * 50_000)

        async def read() -> None:
            with contextlib.suppress(ConnectionError):
                while chunk := await loop.sock_recv(client, 1024):
                    received.extend(chunk)
                    if not llm.hung_up:
                        await asyncio.sleep(0.1)  # its pace

        writing, reading = asyncio.ensure_future(write()), asyncio.ensure_future(read())
        await llm.until(lambda: llm.hung_up == 1, "the upstream connection's end")
        writing.cancel()
        await reading
        assert not received.endswith(b"0\r\n\r\n"), "it must not look like the end of the answer"
        row = await the_row(sql)
        assert (row["status"], row["error_type"]) == ("cancelled", "client-left")
        assert service.outcomes == {"client-left": 1}


async def test_a_client_comes_back_to_a_stream_where_it_lost_it(here, author):
    async with here() as service:
        client = await follow(service, author, "Because", " air", headers=KEY)
        start, had = await client.event(), await client.event()
        await client.leave()
        path = f"/api/v1/generations/{start.data['id']}"
        headers = [("Last-Event-ID", had.id)]
        running = (await request(service.port, "GET", path)).json()
        assert (running["status"], running["result"][:7]) == ("running", "Because")
        again = await Follower.begin(service.port, f"{path}/events", headers=headers)
        assert (await again.event()).data == {"text": " air"}
        await author.write(" scatters")
        await author.finish()
        rest = await again.rest()
        assert text_of(rest) == " scatters"
        assert kinds_of(rest) == ["usage", "done"]

        stored = await Follower.begin(service.port, f"{path}/events", headers=headers)
        events = await stored.rest()
        assert text_of(events) == " air scatters"
        assert events[-2:] == rest[-2:]
        everything = await (await Follower.begin(service.port, f"{path}/events")).rest()
        assert kinds_of(everything) == ["start", "usage", "done"]
        assert text_of(everything) == "Because air scatters"
        kept = (await request(service.port, "GET", path)).json()
        assert kept == rest[-1].data | {"status": "succeeded"}


async def test_what_came_of_a_broken_answer_can_be_asked_for(here, author):
    async with here() as service:
        client = await follow(service, author, "Because")
        await author.close()
        start, _word, error = await client.rest()
        path = f"/api/v1/generations/{start.data['id']}"
        kept = (await request(service.port, "GET", path)).json()
        assert (kept["status"], kept["result"], kept["error"]) == ("failed", "Because", error.data)
        events = await (await Follower.begin(service.port, f"{path}/events")).rest()
        assert (text_of(events), events[-1].data) == ("Because", error.data)
