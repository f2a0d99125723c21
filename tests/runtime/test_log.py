"""The log of a service: how it starts, what each line looks like, which request it is about."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

import generation
from tests.support import http, service
from tests.support.provider import says

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +[\w.]+: .")


async def test_all_lines_have_one_format_and_a_request_id_finds_its_lines(serve, llm):
    llm.behave = says(500, b"{}")
    async with serve("--access-log", LLM_MAX_ATTEMPTS="1") as running:
        await http.request(
            running.port, "POST", "/api/v1/generate/1", headers=[("x-request-id", "mine-7")]
        )
        await running.until_logged('generate/1 HTTP/1.1" 502')
        lines = running.log.splitlines()
    assert [line for line in lines if not LINE.match(line)] == []
    mine = [line for line in lines if line.endswith("[request mine-7]")]
    assert [line.split()[3] for line in mine] == ["generation.llm.failures:", "uvicorn.access:"]


async def test_as_json_a_request_id_finds_its_lines_and_one_of_them_has_the_figures(serve, llm):
    llm.script = [says(500, b"{}")]
    async with serve("--access-log", LOG_FORMAT="json") as running:
        await http.generate(
            running.port,
            payload={"messages": [{"role": "user", "content": "a canary"}]},
            headers=[("x-request-id", "mine-7"), TRACEPARENT],
        )
        await running.until_logged('generate/1 HTTP/1.1\\" 200')
        lines = [json.loads(line) for line in running.log.splitlines()]
        prompt = llm.requests[0].body.decode()
    assert "a canary" in prompt
    assert "a canary" not in str(lines)
    mine = {line["logger"]: line for line in lines if line.get("request_id") == "mine-7"}
    assert list(mine) == ["generation.llm.failures", "generation.each", "uvicorn.access"]
    each = mine["generation.each"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"])
    assert each["trace_id"] == TRACE
    assert each["log_id"].endswith(each["span_id"])
    shown = ("level", "user_id", "status", "provider", "attempts", "input_tokens", "error_type")
    assert [each[name] for name in shown] == ["INFO", 1, "succeeded", "anthropic", 2, 10, ""]


async def test_without_an_access_log_the_start_and_failures_are_logged_all_the_same(serve, llm):
    llm.behave = says(500, b"{}")
    async with serve("--no-access-log", LLM_MAX_ATTEMPTS="1") as running:
        log = running.log
        assert f"Staccato {generation.__version__} serves at 127.0.0.1:0 as process" in log
        assert f"LLM: anthropic:claude-sonnet-5-5 at {llm.url}; database: postgresql://" in log
        await http.generate(running.port)
        assert "uvicorn.access" not in running.log
        assert "a call failed: llm-unreachable: anthropic answered 500" in running.log


async def test_uvicorns_own_level_is_kept(serve):
    async with serve("--log-level", "info", LOG_LEVEL="DEBUG") as running:
        await running.until_logged("uvicorn.error: Application startup complete")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "staccato.E006: No LLM is configured and DEBUG is off"),
        ({"OPENAI_KEY": "k"}, "Did you mean OPENAI_API_KEY?"),
        (
            {"OPENAI_BASE_URL": "http://h/v1"},
            "OPENAI_BASE_URL is set, but openai",
        ),
    ],
)
async def test_production_does_not_start_with_made_up_answers(database_url, env, words):
    chosen = {**service.PRODUCTION, "LLM_PROVIDER": "auto", **env}
    with pytest.raises(AssertionError, match="did not start") as ended:
        async with service.running(database_url, **chosen):
            pass
    assert words in str(ended.value)
    assert "staccato.E006" in str(ended.value)


async def test_production_serves_made_up_answers_where_it_is_told_to(users, database_url):
    told = {"LLM_PROVIDER": "simulated", "STACCATO_API_KEYS_REQUIRED": "0"}
    env = {**service.PRODUCTION, **told}
    async with service.running(database_url, **env) as running:
        assert (await http.generate(running.port)).status == 200
        assert "the LLM is simulated" in running.log


async def test_the_cause_of_a_missing_database_is_logged(users, database_url):
    unreachable = "postgresql://user@127.0.0.1:1/name"
    async with service.running(unreachable, LLM_PROVIDER="simulated") as running:
        for _ in range(3):
            assert (await http.generate(running.port)).status == 503
        lines = [
            line for line in running.log.splitlines() if "the database can't be reached:" in line
        ]
    assert len(lines) == 1
    assert "refused" in lines[0]


async def test_a_refused_tls_does_not_look_like_an_outage(users):
    async def refuses(reader, writer):
        await reader.readexactly(8)  # PostgreSQL's request for TLS
        writer.write(b"N")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuses, "127.0.0.1", 0) as postgres:
        port = postgres.sockets[0].getsockname()[1]
        url = f"postgresql://user:canary-password@127.0.0.1:{port}/name?sslmode=require"
        async with service.running(url, LLM_PROVIDER="simulated") as running:
            assert (await http.generate(running.port)).status == 503
            log = running.log
    cause = log.partition("generation.database.sqlstate: the database can't be reached:")[2]
    assert "SSL" in cause.splitlines()[0]
    assert "canary" not in log
