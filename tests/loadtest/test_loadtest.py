"""`manage.py loadtest`: what it sends, what it takes for a failure, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError

from generation.loadtest import report, verdict
from generation.loadtest.run import Outcome, Plan, Result
from generation.loadtest.target import Service
from generation.management.commands.loadtest import _parse_users
from generation.telemetry.snapshot import PoolPage
from tests.loadtest.support import POOL, loadtest, page, plan, result
from tests.support.forked import run

ROOT = Path(__file__).parents[2]
OK = Outcome(1.0, 0.5, "")
BUSY = Outcome(1.5, 0.1, "503 too-many-in-flight")


# --- the verdict ------------------------------------------------------------------------------


def test_only_answers_of_200_pass():
    assert verdict.judge(plan(), result(OK, OK)).passed
    assert not verdict.judge(plan(), result(OK, BUSY)).passed
    assert not verdict.judge(plan(), result()).passed


def test_failures_are_listed_by_kind_the_most_frequent_first():
    found = verdict.judge(plan(), result(OK, BUSY, BUSY, Outcome(1, 1, "connection: OSError")))
    assert found.headline.startswith("FAILED: 1 of 4 requests")
    assert found.sentences[0] == "Failures: 2 × 503 too-many-in-flight."
    assert found.sentences[1] == "Failures: 1 × connection: OSError."


def test_the_verdict_sets_the_peak_beside_the_pools_limit():
    said = " ".join(verdict.judge(plan(), result(OK)).sentences)
    assert "at most 2 checked out at once, of 10 in the pool and 20 beyond it" in said
    assert "up to 480 requests waited for the LLM" in said
    assert "3.2 ms in the median and 11.5 ms" in said


def test_several_processes_are_named_as_such():
    idle, busy = replace(POOL, max_overflow=10), replace(POOL, peak_checked_out=10)
    several = PoolPage.of(1, {1: idle, 2: idle, 3: None})
    said = " ".join(verdict.judge(plan(), result(OK, ended_with=several)).sentences)
    assert "of 20 in the pools of 2 processes and 20 beyond them" in said
    assert "Raise DB_POOL_SIZE" not in said
    several = PoolPage.of(1, {1: idle, 2: busy})
    said = " ".join(verdict.judge(plan(), result(OK, ended_with=several)).sentences)
    assert "Raise DB_POOL_SIZE" in said


def test_a_peak_that_was_there_before_is_not_claimed_for_the_test():
    said = " ".join(verdict.judge(plan(), result(OK, began_with=page())).sentences)
    assert "at once (since the service started)" in said


def test_an_exhausted_pool_gets_advice():
    exhausted = page(peak_checked_out=10)
    said = " ".join(verdict.judge(plan(), result(OK, ended_with=exhausted)).sentences)
    assert "Raise DB_POOL_SIZE" in said


def test_without_the_pools_page_the_verdict_says_so_and_judges_the_answers():
    blind = result(OK, ended_with=None, samples=[], no_pool_because="it answers 404")
    found = verdict.judge(plan(), blind)
    assert found.passed
    assert any("it answers 404" in sentence for sentence in found.sentences)


def test_more_callers_than_the_service_takes_are_pointed_out():
    said = verdict.judge(plan(concurrency=6000), result(OK)).sentences[-1]
    assert "takes 5,000 requests at once" in said


# --- the report -------------------------------------------------------------------------------


def rendered(a_plan: Plan, a_result: Result) -> str:
    return report.render(a_plan, a_result, verdict.judge(a_plan, a_result), "2026-01-02 03:04 UTC")


def test_the_report_is_one_file_that_loads_nothing():
    html = rendered(plan(service=Service("https://example.org", ())), result(OK, BUSY))
    assert not re.search(r"""(src|href)=|@import|url\(""", html)
    assert "FAILED: 1 of 2" in html
    assert len(plots(html)) == 4


def plots(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_failures_are_drawn_over_time_by_kind():
    early = [Outcome(0.1, 0.1, "502 llm-unreachable")] * 3
    late = [Outcome(1.9, 0.1, "429 llm-rate-limited")] * 2
    rare = [Outcome(1.0, 0.1, "connection: OSError"), Outcome(1.0, 0.1, "504 llm-timed-out")]
    found = result(OK, *early, *late, *rare)
    assert plots(rendered(plan(), found))[-1] == "Failures a second"
    lines = report._failures(found, found.seconds)
    assert list(lines) == ["502 llm-unreachable", "429 llm-rate-limited", "other failures"]
    seen = {kind: [x for x, rate in points if rate] for kind, points in lines.items()}
    assert [round(x, 1) for (x,) in seen.values()] == [0.1, 1.9, 1.0]
    width = found.seconds / report.COLUMNS
    assert sum(rate for _, rate in lines["502 llm-unreachable"]) * width == pytest.approx(3)
    assert plots(rendered(plan(), result(OK)))[-1] == "Latency in seconds", "no empty plot"


def test_the_report_escapes_what_it_quotes():
    hostile = result(Outcome(1, 1, "503 <script>alert(1)</script>"))
    assert "<script" not in rendered(plan(), hostile)


def test_the_report_of_a_test_without_any_look_at_the_pool_is_drawn_all_the_same():
    assert "<svg" in rendered(plan(), result(OK, samples=[], ended_with=None))


def test_the_report_keeps_the_key_to_itself():
    secret = plan(service=Service("http://h", (("authorization", "Bearer sk-canary"),)))
    assert "canary" not in rendered(secret, result(OK))


# --- the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "users"), [("7", [7]), ("1,2,5", [1, 2, 5]), ("1-3,9", [1, 2, 3, 9])]
)
def test_users_are_one_or_a_list_or_a_range(words, users):
    assert _parse_users(words) == users


@pytest.mark.parametrize(
    "arguments",
    [
        ("--users", "one"),
        ("--users", "5-1"),
        ("--url", "example.org"),
        ("--concurrency", "0"),
        ("--requests", "-1"),
        ("--body", "{"),
        ("--header", "no colon"),
        ("--ca-file", "/nowhere"),
        ("--report", "/nowhere/loadtest.html"),
        ("--report", "/tmp"),
        ("--url", "http://"),
        ("--url", "http://h:abc"),
        ("--header", "name: a\rb"),
        ("--url", "http://127.0.0.1:9", "--timeout", "5"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(arguments):
    with pytest.raises(CommandError):
        loadtest("--report", "", *arguments)


def test_a_malformed_key_is_refused_and_not_shown(monkeypatch):
    with pytest.raises(CommandError, match="a space or a control character") as caught:
        loadtest("--report", "", "--api-key", "stc_canary\rx")
    assert "canary" not in str(caught.value)


def test_a_report_may_go_to_a_device():
    with pytest.raises(CommandError, match="gives no answer"):
        loadtest("--report", "/dev/null", "--url", "http://127.0.0.1:9", "--timeout", "5")


def test_help_teaches():
    help_text = run("manage.py", "loadtest", "--help", env=dict(os.environ)).output
    for word in ("--concurrency 5000", "--paid", "exit status 1", "ulimit -n"):
        assert word in help_text


# --- against a service ------------------------------------------------------------------------


async def test_it_calls_all_users_watches_the_pool_and_reports(serve, sql, tmp_path):
    page = tmp_path / "report.html"
    async with serve(LLM_PROVIDER="simulated", LLM_SIMULATED_LATENCY="0.2") as service:
        status, said = await sync_to_async(loadtest)(
            "--url", f"http://127.0.0.1:{service.port}", "--concurrency", "50",
            "--requests", "150", "--users", "1-2", "--report", str(page),
        )  # fmt: skip
    assert status == 0, said
    assert "PASSED: 150 of 150 requests" in said
    assert "up to 50 at once" in said
    assert "in flight" in said
    assert "checked out at once" in said
    assert "<svg" in page.read_text()
    rows = await sql.fetch(
        "SELECT user_id, count(*) FROM generation_generationlog GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [(1, 76), (2, 75)]  # the first asks whether all is well


async def test_for_a_duration_it_begins_no_request_after_it(serve):
    async with serve(LLM_PROVIDER="simulated", LLM_SIMULATED_LATENCY="0.3") as service:
        status, said = await sync_to_async(loadtest)(
            "--url", f"http://127.0.0.1:{service.port}", "--concurrency", "5",
            "--duration", "0.1", "--report", "",
        )  # fmt: skip
    assert status == 0, said
    assert "PASSED: 5 of 5 requests" in said


async def test_refused_requests_fail_the_test(serve):
    async with serve(
        LLM_PROVIDER="simulated", LLM_SIMULATED_LATENCY="0.2", STACCATO_MAX_IN_FLIGHT="3"
    ) as service:
        status, said = await sync_to_async(loadtest)(
            "--url", f"http://127.0.0.1:{service.port}", "--concurrency", "20",
            "--requests", "40", "--report", "",
        )  # fmt: skip
    assert status == 1
    assert "FAILED" in said
    assert "× 503 too-many-in-flight." in said
    assert "takes 3 requests at once" in said


async def test_an_llm_that_costs_money_is_asked_only_on_purpose(serve, llm):
    async with serve() as service:
        url = f"http://127.0.0.1:{service.port}"
        with pytest.raises(CommandError, match="--paid"):
            await sync_to_async(loadtest)("--url", url, "--requests", "5", "--report", "")
        assert llm.calls == 1
        status, said = await sync_to_async(loadtest)(
            "--url", url, "--requests", "5", "--concurrency", "5", "--report", "", "--paid"
        )
        assert status == 0, said


async def test_a_first_request_that_fails_ends_the_test_with_the_services_reason(serve):
    async with serve(LLM_PROVIDER="simulated") as service:
        with pytest.raises(CommandError, match="answers 404: user 99 does not exist"):
            await sync_to_async(loadtest)(
                "--url", f"http://127.0.0.1:{service.port}", "--users", "99", "--report", ""
            )


async def test_a_simulated_fault_at_the_first_request_does_not_end_the_test(serve):
    # Ten in a row would end it: 1 time in 1,500.
    faults = {"LLM_SIMULATED_FAULTS": "429=0.4", "LLM_MAX_ATTEMPTS": "1"}
    async with serve(LLM_PROVIDER="simulated", **faults) as service:
        for _ in range(6):  # one of them meets a fault first, but for 1 time in 20
            status, said = await sync_to_async(loadtest)(
                "--url", f"http://127.0.0.1:{service.port}", "--requests", "20",
                "--concurrency", "5", "--report", "",
            )  # fmt: skip
            assert status == 1
            assert "of 20 requests answered" in said
            assert "llm-" in said


async def test_an_llm_that_fails_every_first_request_is_tested_on_purpose(serve):
    faults = {"LLM_SIMULATED_FAULTS": "429=1", "LLM_MAX_ATTEMPTS": "1"}
    async with serve(LLM_PROVIDER="simulated", **faults) as service:
        arguments = ("--url", f"http://127.0.0.1:{service.port}", "--requests", "5", "--report", "")
        with pytest.raises(CommandError, match=r"10 times in a row.*Add --paid"):
            await sync_to_async(loadtest)(*arguments)
        status, said = await sync_to_async(loadtest)(*arguments, "--paid")
    assert status == 1
    assert "FAILED: 0 of 5 requests" in said


@contextlib.asynccontextmanager
async def strange_server(answer: bytes, heads: list[str]):
    """Answers whatever is asked in one way and closes the connection."""

    async def talk(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http_answer(status: str, payload: object, *more: str) -> bytes:
    body = json.dumps(payload).encode()
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_the_key_and_headers_are_sent_and_a_service_without_the_page_is_no_failure():
    heads: list[str] = []
    answer = http_answer("200 OK", {"result": "", "provider": "simulated"})
    async with strange_server(answer, heads) as url:
        status, said = await sync_to_async(loadtest)(
            "--url", url, "--requests", "3", "--concurrency", "1", "--report", "",
            "--api-key", "sk-1", "--header", "X-Tenant: blue",
        )  # fmt: skip
    assert status == 0, said
    assert "can't be read" in said
    posts = [head.lower() for head in heads if head.startswith("POST")]
    assert len(posts) == 4
    assert all("authorization: bearer sk-1" in head for head in posts)
    assert all("x-tenant: blue" in head for head in posts)


@pytest.mark.parametrize(
    "answer",
    [
        http_answer("200 OK", {"hello": "world"}),
        http_answer("302 Found", {}, "location: /elsewhere"),
        http_answer("500 Internal Server Error", "no object"),
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_answer_of_the_service_is_not_taken_for_one(answer):
    async with strange_server(answer, []) as url:
        with pytest.raises(CommandError):
            await sync_to_async(loadtest)("--url", url, "--requests", "1", "--report", "")


async def test_it_is_fit_for_a_thousand_at_once(serve):
    async with serve(LLM_PROVIDER="simulated", LLM_SIMULATED_LATENCY="4") as service:
        status, said = await sync_to_async(loadtest)(
            "--url", f"http://127.0.0.1:{service.port}", "--concurrency", "1000",
            "--requests", "1000", "--report", "",
        )  # fmt: skip
    assert status == 0, said
    assert "PASSED: 1,000 of 1,000 requests answered with 200, up to 1,000 at once" in said
