"""Opening, draining and closing; what happens at the entrance."""

from __future__ import annotations

import asyncio
import resource

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

from generation import conf
from generation.asgi import get_service
from generation.errors import Abandoned, RuntimeNotOpen
from generation.models import GenerationLog
from generation.runtime import process as runtime
from generation.runtime import resources
from generation.runtime.process import Runtime
from tests.support import http
from tests.support.in_process import in_process_client
from tests.support.waiting import until

GENERATE = "/api/v1/generate/1"
UNTIDY = ("was never closed", "was destroyed", "never retrieved", "Traceback", "never awaited")


@pytest.fixture
def configured(settings):
    """Change settings of Staccato for one test."""

    def change(**values):
        settings.STACCATO = {**settings.STACCATO, **values}

    return change


def slug(answer) -> str:
    return answer.json()["type"].rpartition(":")[2]


async def test_without_a_lifespan_the_first_request_says_so(users):
    async with in_process_client() as client:
        answer = await client.post(GENERATE)
        assert answer.status_code == 500
        assert slug(answer) == "runtime-not-open"
        assert "lifespan" in answer.json()["detail"]
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 500


async def test_a_process_has_one_runtime(runtime):
    with pytest.raises(RuntimeError, match="already"):
        async with Runtime.open():
            pass


async def test_a_bad_setting_fails_the_lifespan_with_its_name(users, configured):
    configured(DB_POOL_SIZE="many")
    with pytest.raises(ImproperlyConfigured, match="DB_POOL_SIZE"):
        async with Runtime.open():
            pass


async def test_beyond_the_limit_requests_are_refused_before_anything_is_spent(
    users, orm, configured
):
    configured(MAX_IN_FLIGHT=1, LLM_SIMULATED_LATENCY="30")
    async with Runtime.open() as opened, in_process_client() as client:
        first = asyncio.create_task(client.post(GENERATE))
        await until(lambda: opened.llm.in_flight, "a call in the LLM")
        refused = await client.post(GENERATE)
        assert (refused.status_code, slug(refused)) == (503, "too-many-in-flight")
        assert refused.headers["retry-after"] == "1"
        for call in opened.admission.calls.values():
            call.abandon(Abandoned("the test is over"))
        assert (await first).status_code == 503
    assert await GenerationLog.objects.acount() == 1


async def test_large_requests_are_bounded_by_their_sum_and_one_is_always_taken(
    users, orm, configured
):
    configured(MAX_BYTES_IN_FLIGHT=2**20, MAX_BODY_BYTES=2**21, LLM_SIMULATED_LATENCY="30")

    def post(client, size: int):
        return client.post(GENERATE, json={"input": "x" * size})

    async with Runtime.open() as opened, in_process_client() as client:
        large = asyncio.create_task(post(client, 1_100_000))  # alone, it is taken
        await until(lambda: opened.llm.in_flight, "a call in the LLM")
        refused = await post(client, 1000)
        assert (refused.status_code, slug(refused)) == (503, "too-many-in-flight")
        await abandon_all(opened, [large])
        small = [asyncio.create_task(post(client, 300_000)) for _ in range(3)]
        await until(lambda: opened.llm.in_flight == 3, "3 calls in the LLM")
        assert (await post(client, 300_000)).status_code == 503
        small.append(asyncio.create_task(post(client, 100_000)))
        await until(lambda: opened.llm.in_flight == 4, "4 calls in the LLM")
        await abandon_all(opened, small)
        assert opened.admission._bytes == 0


async def abandon_all(opened, answers) -> None:
    for call in opened.admission.calls.values():
        call.abandon(Abandoned("the test is over"))
    for answer in answers:
        assert (await answer).status_code == 503


async def test_a_closing_runtime_finishes_what_is_in_flight(users, orm, configured):
    configured(LLM_SIMULATED_LATENCY="1.5")
    async with in_process_client() as client:
        async with Runtime.open() as opened:
            answers = [asyncio.create_task(client.post(GENERATE)) for _ in range(5)]
            await until(lambda: opened.llm.in_flight == 5, "5 calls in the LLM")
        assert [(await answer).status_code for answer in answers] == [200] * 5
    assert await GenerationLog.objects.filter(status="succeeded").acount() == 5


async def test_what_outlasts_the_drain_limit_is_recorded_as_cancelled(users, orm, configured):
    configured(LLM_SIMULATED_LATENCY="30", DRAIN_TIMEOUT=0.1)
    async with in_process_client() as client:
        async with Runtime.open() as opened:
            answer = asyncio.create_task(client.post(GENERATE))
            await until(lambda: opened.llm.in_flight, "a call in the LLM")
        assert (await answer).status_code == 503
    row = await GenerationLog.objects.select_related("body").aget()
    assert row.status == "cancelled"
    assert "shut down" in row.body.error


async def test_a_draining_service_refuses_and_is_not_ready(client, runtime):
    runtime.admission.draining = True
    refused = await client.post(GENERATE)
    assert (refused.status_code, slug(refused)) == (503, "draining")
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["draining"] is True


async def test_sigterm_under_load_answers_everybody_and_ends_tidily(serve, llm, sql):
    llm.release.clear()
    async with serve() as service:
        callers = [asyncio.create_task(http.generate(service.port)) for _ in range(100)]
        await llm.until(lambda: llm.waiting == 100, "all of them in the LLM")
        service.terminate()
        with pytest.raises(ConnectionError):
            while True:  # until the listener is closed
                await http.request(service.port, "GET", "/livez")
        llm.release.set()
        answers = await asyncio.gather(*callers)
        assert {answer.status for answer in answers} == {200}
        # uvicorn raises the signal again once it has shut down in order.
        assert await service.ended() in {0, 143, -15}
        assert await sql.fetchval("SELECT count(*) FROM generation_generationlog") == 100
        assert await sql.fetchval("SELECT count(*) FROM generation_usagelog") == 100
        for word in UNTIDY:
            assert word not in service.log, service.log


async def test_a_bug_in_the_pipeline_is_a_500_that_reveals_nothing(client, runtime, monkeypatch):
    def broken(*_args):
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(runtime.pipeline, "_build_prompt", broken)
    answer = await client.post(GENERATE)
    assert (answer.status_code, slug(answer)) == (500, "internal-error")
    assert "secret" not in answer.text


async def test_a_bug_in_a_provider_still_leaves_a_row(client, runtime, monkeypatch):
    async def broken(*_):
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(runtime.llm, "run", broken)
    answer = await client.post(GENERATE)
    assert (answer.status_code, slug(answer)) == (502, "llm-error")
    row = await GenerationLog.objects.select_related("body").aget()
    assert (row.status, row.error_type) == ("failed", "llm-error")
    assert "secret" not in row.body.error + answer.text


async def test_a_prompt_that_the_model_answers_with_unstorable_text_is_stored_cleaned(
    client, runtime, monkeypatch
):
    from dataclasses import replace

    run = runtime.llm.run

    async def hostile(context):
        outcome = await run(context)
        return replace(outcome, reply=replace(outcome.require_reply(), text="a\x00b\ud800c"))

    monkeypatch.setattr(runtime.llm, "run", hostile)
    answer = await client.post(GENERATE)
    assert answer.status_code == 200
    assert answer.json()["result"] == "a\ufffdb\ufffdc"
    row = await GenerationLog.objects.select_related("body").aget()
    assert row.body.result == "a\ufffdb\ufffdc"
    assert row.body.result_cleaned is True


def test_the_open_file_limit_bounds_the_requests_in_flight(monkeypatch, caplog):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 1024))
    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: raised.append(pair))
    assert resources.raise_open_file_limit(5000) == (1024 - resources.FILES_RESERVED) // 2
    assert raised == [(1024, 1024)]
    assert resources.requests_allowed(5000) == (256 - resources.FILES_RESERVED) // 2
    assert "ulimit -n" in caplog.text


async def test_settings_that_change_are_read_again(configured):
    configured(DB_POOL_SIZE=3)
    assert conf.load().db_pool_size == 3


async def test_the_lifespan_opens_and_closes_the_runtime(users):
    application = get_service()
    incoming: asyncio.Queue = asyncio.Queue()
    outgoing: asyncio.Queue = asyncio.Queue()
    lifespan = asyncio.create_task(application({"type": "lifespan"}, incoming.get, outgoing.put))
    await incoming.put({"type": "lifespan.startup"})
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"
    assert runtime.current().admission.draining is False
    await incoming.put({"type": "lifespan.shutdown"})
    assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"
    await lifespan
    with pytest.raises(RuntimeNotOpen):
        runtime.current()


async def test_a_body_that_is_too_large_is_refused_while_it_arrives(serve):
    async with serve(STACCATO_MAX_BODY_BYTES="2048") as service:

        async def endless():
            for _ in range(64):
                yield b"x" * 1024

        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(
                f"http://127.0.0.1:{service.port}{GENERATE}", content=endless()
            )
        assert (answer.status_code, slug(answer)) == (413, "body-too-large")
