"""Several processes of one deployment: each of them reports all."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import tempfile
import time
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from prometheus_client.parser import text_string_to_metric_families

from generation.telemetry import siblings, totals
from generation.telemetry.siblings import Siblings
from generation.telemetry.snapshot import Snapshot
from tests.support import http
from tests.support.waiting import HANG_S

SUCCEEDED = 'staccato_requests_total{outcome="succeeded"}'
MODEL = 'model="claude-sonnet-5-5",provider="anthropic"'
SUMMED = ("size", "open", "checked_out", "overflow", "requests_in_flight", "llm_calls_in_flight")


@pytest.fixture
def serve_one_of_several(serve, tmp_path):
    """A service that shares its journal's folder, and so its deployment, with others."""

    def start(*options: str, **env: str):
        paced = {"application": "tests.support.paced:application", "ASK_LIMIT_S": str(HANG_S)}
        return serve(*options, STACCATO_JOURNAL_DIR=str(tmp_path), **paced | env)

    return start


@contextlib.asynccontextmanager
async def two(start):
    """Two servers, so that a test can say which of the processes it asks."""
    async with start() as one, start() as other:
        yield one, other


def run(*command: str) -> str:
    output = io.StringIO()
    call_command(*command, stdout=output)
    return output.getvalue()


async def pids(service) -> set[int]:
    return {entry["process"] for entry in (await service.pool())["processes"]}


async def until_both_serve(service) -> None:
    """uvicorn's parent names the port before any worker listens there."""
    await service.until_logged("Application startup complete", times=2)


# --- as a user runs them ----------------------------------------------------------------------


async def test_each_worker_reports_the_total_of_all(serve_one_of_several, llm):
    async with serve_one_of_several("--workers", "2") as service:
        await until_both_serve(service)
        llm.release.clear()
        calls = [asyncio.create_task(http.generate(service.port)) for _ in range(60)]
        await llm.until(lambda: llm.waiting == 60, "60 calls")
        answered_by = set()
        async with asyncio.timeout(HANG_S):
            while len(answered_by) < 2:
                pool = await service.pool()
                answered_by.add(pool["process"])
                entries = pool["processes"]
                assert pool["total"]["requests_in_flight"] == 60
                assert pool["total"]["llm_calls_in_flight"] == 60
                for key in SUMMED:
                    assert pool["total"][key] == sum(entry[key] for entry in entries)
                own = next(entry for entry in entries if entry["process"] == pool["process"])
                assert all(pool[key] == own[key] for key in SUMMED)
        assert answered_by == {entry["process"] for entry in entries}
        llm.release.set()
        assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
        reported_by = set()
        async with asyncio.timeout(HANG_S):
            while len(reported_by) < 2:
                text = (await http.request(service.port, "GET", "/metrics")).body.decode()
                reported_by.add(int(re.match(r"# Reported by process (\d+)\.", text)[1]))
                assert names_are_unique(text)
                assert f"{SUCCEEDED} 60.0\n" in text
                assert f"staccato_llm_seconds_count{{{MODEL}}} 60.0\n" in text
                assert f'staccato_llm_seconds_bucket{{le="+Inf",{MODEL}}} 60.0\n' in text
        assert reported_by == answered_by


def names_are_unique(text: str) -> bool:
    """As Prometheus wants it: no series and no family twice."""
    families = list(text_string_to_metric_families(text))
    series = [
        (sample.name, *sorted(sample.labels.items()))
        for family in families
        for sample in family.samples
    ]
    return len(series) == len(set(series)) and text.count("# TYPE ") == len(families) > 20


async def test_gauges_are_labelled_by_process_and_the_commands_count_all(serve_one_of_several):
    async with two(serve_one_of_several) as (one, other):
        for pid in await pids(one):
            assert await other.metric(f'staccato_db_pool_size{{process="{pid}"}}') == 10
            assert await other.metric(f'staccato_process_up{{process="{pid}"}}') == 1

        for service in (one, other, other):
            await http.generate(service.port)
        url = f"http://127.0.0.1:{one.port}"
        said = await sync_to_async(run)("poolsize", "--url", url)
        assert "3 requests answered by 2 processes, at most 2 at once" in said
        assert "2 workers × " in said
        said = await sync_to_async(run)(
            "loadtest", "--url", url, "--requests", "2", "--report", "", "--paid"
        )
        assert "of 20 in the pools of 2 processes" in said


async def test_a_frozen_process_is_named_and_a_killed_one_disappears_but_its_counts_stay(
    serve_one_of_several,
):
    def start():
        return serve_one_of_several(ASK_LIMIT_S="3")

    async with two(start) as (one, other):
        for service in (one, other, other):
            assert (await http.generate(service.port)).status == 200
        assert await one.metric(SUCCEEDED) == 3
        killed = other.process.pid
        os.kill(killed, signal.SIGSTOP)
        try:
            async with asyncio.timeout(HANG_S):
                pool = await one.pool()
            assert {"process": killed, "answers": False} in pool["processes"]
            assert pool["total"]["size"] == pool["size"]
            assert await one.metric(f'staccato_process_up{{process="{killed}"}}') == 0
            assert await one.metric(SUCCEEDED) == 3
        finally:
            os.kill(killed, signal.SIGCONT)
        await one.until_pool(lambda pool: pool["total"]["size"] == 20, "both again")

        other.process.kill()
        await other.ended()
        pool = await one.until_pool(lambda pool: len(pool["processes"]) == 1, "one process")
        assert pool["total"]["size"] == pool["size"]
        assert await one.metric(SUCCEEDED) == 3
        assert await one.metric(f'staccato_process_up{{process="{killed}"}}') == 0
        text = (await http.request(one.port, "GET", "/metrics")).body.decode()
        assert f'process="{killed}"' not in text
        async with start() as successor:
            await http.generate(successor.port)
            assert await one.metric(SUCCEEDED) == await successor.metric(SUCCEEDED) == 4


async def test_a_single_process_reports_its_metrics_without_the_label(client):
    await client.post("/api/v1/generate/1")
    assert "process=" not in (await client.get("/metrics")).text
    pool = (await client.get("/api/v1/pool")).json()
    (entry,) = pool["processes"]
    assert entry["process"] == pool["process"]
    assert pool["total"] == {key: pool[key] for key in pool["total"]}


# --- the folder -------------------------------------------------------------------------------


@pytest.fixture
def short_tmp(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:  # fit for a socket's path
        monkeypatch.setattr(tempfile, "gettempdir", lambda: folder)
        yield Path(folder)


def lonely() -> Siblings:
    return Siblings("somewhere", Snapshot, list)


async def test_processes_tell_each_other_what_they_had_in_flight(short_tmp):
    points = [[9, 1, 0], [10, 2, 0]]
    one, other = lonely(), Siblings("somewhere", Snapshot, list, history=lambda: points)
    async with one.answering(), other.answering():
        assert await one.histories() == [[], points]
    assert await one.histories() == [[]]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
async def test_a_folder_that_others_may_enter_is_not_trusted(short_tmp, caplog, mode):
    one = lonely()
    one._folder.mkdir()
    one._folder.chmod(mode)
    async with one.answering():
        assert await one.snapshots() == {os.getpid(): Snapshot()}
        assert await one.metrics() == ({os.getpid(): []}, None)
    assert "not a private folder" in caplog.text
    assert list(one._folder.iterdir()) == []


async def test_a_link_to_a_folder_is_not_trusted(short_tmp, caplog):
    one = lonely()
    (short_tmp / "elsewhere").mkdir(mode=0o700)
    one._folder.symlink_to(short_tmp / "elsewhere")
    async with one.answering():
        pass
    assert "not a private folder" in caplog.text


async def test_a_path_too_long_for_a_socket_leaves_the_process_alone(short_tmp, caplog):
    one = lonely()
    one._folder = short_tmp / ("x" * 100)
    async with one.answering():
        assert len(await one.snapshots()) == 1
    assert "too long" in caplog.text


async def test_without_a_temporary_folder_the_process_reports_itself_alone(monkeypatch, caplog):
    """As on a read-only root."""

    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    one = lonely()
    async with one.answering():
        assert await one.snapshots() == {os.getpid(): Snapshot()}
        assert await one.metrics() == ({os.getpid(): []}, None)
    assert caplog.text.count("show this process only: No usable temporary directory") == 1


async def test_the_folder_stays_private_and_holds_living_processes_only(short_tmp):
    one = lonely()
    async with one.answering():
        assert one._folder.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in one._folder.iterdir()} == {f"{one._name}.sock", "lock"}
    assert not one._folder.exists()


def counting(deployment: str = "somewhere") -> Siblings:
    """It has counted one thing."""
    family = {"name": "n", "help": "", "type": "counter", "samples": [["n_total", {}, 1.0]]}
    return Siblings(deployment, Snapshot, lambda: [family])


async def count_of_the_retired(asking: Siblings) -> float:
    _living, (family,) = await asking.metrics()
    ((_name, _labels, value),) = family["samples"]
    return value


async def test_however_many_processes_come_and_go_their_counts_stay_in_few_files(short_tmp):
    first = lonely()
    async with first.answering():
        for _ in range(5):
            async with counting().answering():
                pass
        assert await count_of_the_retired(first) == 5
        assert len(list(first._folder.glob("*.json"))) <= 3


async def test_a_deployment_that_starts_again_counts_from_zero(short_tmp):
    async with counting().answering():
        pass
    one = lonely()
    async with one.answering():
        _living, retired = await one.metrics()
        assert retired is None


async def come_together_and_leave_together(count: int = 2) -> None:
    together = [counting() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for one in together:
            await stack.enter_async_context(one.answering())


async def test_the_successors_of_workers_that_left_together_count_on(short_tmp):
    for _ in range(3):
        await come_together_and_leave_together()
    successor = lonely()
    async with successor.answering():
        assert await count_of_the_retired(successor) == 6


async def test_what_left_long_ago_is_forgotten(short_tmp):
    await come_together_and_leave_together()
    (retired,) = short_tmp.glob("*/retired.json")
    long_ago = time.time() - siblings.KEPT_ALONE_S - 1
    os.utime(retired, (long_ago, long_ago))
    one = lonely()
    async with one.answering():
        _living, sums = await one.metrics()
        assert sums is None


async def test_the_metrics_do_not_fall_when_all_workers_are_replaced_at_once(serve_one_of_several):
    async with serve_one_of_several("--workers", "2") as service:
        await until_both_serve(service)
        for _ in range(20):
            assert (await http.generate(service.port)).status == 200
        total, started = 20, 2
        for how in (signal.SIGTERM, signal.SIGKILL):
            assert await service.metric(SUCCEEDED) == total
            for worker in await pids(service):
                os.kill(worker, how)
            started += 2
            await service.until_logged("Application startup complete", times=started)
            assert await service.metric(SUCCEEDED) == total, how
            assert (await http.generate(service.port)).status == 200
            total += 1
        assert await service.metric(SUCCEEDED) == total


async def test_processes_may_come_and_go_at_the_same_moment(short_tmp, monkeypatch):
    monkeypatch.setattr(siblings, "ASK_LIMIT_S", 60)  # none is frozen, only slow

    async def come_and_go() -> None:
        one = lonely()
        async with one.answering():
            assert None not in (await one.snapshots()).values()
            living, _retired = await one.metrics()
            assert None not in living.values()
        assert not one._path(".sock").exists()

    for _ in range(10):
        await asyncio.gather(*(come_and_go() for _ in range(8)))
    (folder,) = short_tmp.iterdir()
    assert {path.name for path in folder.iterdir()} == {"lock", "retired.json"}


async def test_other_deployments_do_not_count(short_tmp):
    one, stranger = counting("here"), counting("there")
    async with one.answering(), stranger.answering():
        assert len(await one._ask_others(b"p", Snapshot.parse)) == 0
        assert len(await stranger._ask_others(b"p", Snapshot.parse)) == 0


async def test_a_sibling_that_sends_nonsense_counts_as_silent(short_tmp):
    async def talk(_reader, writer):
        writer.write(b"{")
        writer.close()

    one = lonely()
    async with one.answering():
        strange = await asyncio.start_unix_server(talk, one._folder / "77-strange.sock")
        assert await one.snapshots() == {os.getpid(): Snapshot(), 77: None}
        strange.close()
        await strange.wait_closed()


def test_the_creation_times_of_counters_are_not_summed():
    def counted(made: float) -> list:
        samples = [["n_total", {}, 1.0], ["n_created", {}, made]]
        return [{"name": "n", "help": "", "type": "counter", "samples": samples}]

    (family,) = totals.sum_cumulative([counted(200.0), counted(100.0)])
    assert [sample[2] for sample in family["samples"]] == [2.0, 100.0]
